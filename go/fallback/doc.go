// Package fallback dials and listens by Machnet where both ends have it, and by TCP where one has not, so that one binary runs in a cloud with
// sidecars and on a laptop without.
//
// The caller gives two addresses for everything: the Machnet one, of a sidecar, and the TCP one, of the kernel. They differ, since a sidecar
// has an address of its own. Nothing finds out one from the other, and neither has to exist: a name of the cloud that the laptop cannot
// look up counts as "no Machnet there".
//
// # What is decided, and when
//
// A Dialer tries Machnet first, for as long as Dialer.Wait, and then TCP with the time that is left. An address that could not be reached
// by Machnet is dialled by TCP at once for as long as Dialer.Retry; then one dial tries Machnet again, while others go on with TCP. So
// a dial takes at most Wait longer than TCP alone would, and that once in Retry for each address. Where Machnet answers, nothing is added.
//
// A Listener accepts connections of both kinds. Where there is no sidecar when it begins, it listens by TCP alone, and by Machnet too as soon
// as there is one.
//
// An established connection never moves from one to the other. When its sidecar ends it fails with ENETDOWN, and the next dial goes by TCP.
//
// # How it shows
//
// A fallback is never silent. The connection is a *machnet.Conn or a *net.TCPConn; Stats counts both and keeps the last reason; and the
// logger, slog.Default unless another is given, hears when an address begins to go by TCP, with the reason, and when Machnet is back.
package fallback
