//go:build !linux || !cgo || !(amd64 || arm64)

package core

// Without the C library everything compiles, so that tools and other platforms' builds work, and nothing attaches.

type capi struct{}

func (*capi) attachBegin(Options) Code                             { return Unsupported }
func (*capi) attachStep() Code                                     { return Unsupported }
func (*capi) errorText() string                                    { return "" }
func (*capi) socket() int                                          { return -1 }
func (*capi) doorbell() int                                        { return -1 }
func (*capi) info() Info                                           { return Info{} }
func (*capi) prepare() error                                       { return nil }
func (*capi) detach()                                              {}
func (*capi) ready() bool                                          { return false }
func (*capi) readyTx() bool                                        { return false }
func (*capi) hasEvents() bool                                      { return false }
func (*capi) hasEventsTx() bool                                    { return false }
func (*capi) poll(func(*Event)) Code                               { return Unsupported }
func (*capi) pollTx(func(*Event)) Code                             { return Unsupported }
func (*capi) arm() bool                                            { return false }
func (*capi) disarm()                                              {}
func (*capi) recv(uint64, []byte, RecvMode, *RecvInfo) (int, Code) { return 0, Unsupported }
func (*capi) sendSome(uint64, []byte, SendMode) (int, Code)        { return 0, Unsupported }
func (*capi) trySend(uint64, []byte) Code                          { return Unsupported }
func (*capi) sendParts(uint64, [][]byte, int) (int, Code)          { return 0, Unsupported }
func (*capi) abort(uint64) Code                                    { return Unsupported }
func (*capi) finish(uint64) Code                                   { return Unsupported }
func (*capi) close(uint64) Code                                    { return Unsupported }
func (*capi) reset(uint64) Code                                    { return Unsupported }
func (*capi) unacked(uint64) (int, Code)                           { return 0, Unsupported }
func (*capi) keepAlive(uint64, uint32) Code                        { return Unsupported }
func (*capi) askStats(uint64) (uint32, Code)                       { return 0, Unsupported }
func (*capi) listen(uint32, uint16, int, Sharing) (uint32, Code)   { return 0, Unsupported }
func (*capi) unlisten(uint32) Code                                 { return Unsupported }
func (*capi) accepted(uint64) Code                                 { return Unsupported }
func (*capi) dial(uint32, uint16, uint16, uint32) (uint32, Code)   { return 0, Unsupported }
func (*capi) cancelDial(uint32) Code                               { return Unsupported }

func codeText(Code) string      { return "not supported by this build" }
func failureText(*Event) string { return "" }
