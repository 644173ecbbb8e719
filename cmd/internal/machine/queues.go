package machine

import (
	"encoding/binary"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// queues are how many an interface has now, as ethtool -l tells (its netlink family, Linux 5.6); 0 where its driver does not say. What an
// interface's attributes tell is how many it could have.
func queues(index int) (rx, tx int) {
	family, err := netlink.GenlFamilyGet(unix.ETHTOOL_GENL_NAME)
	if err != nil {
		return 0, 0
	}
	ask := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_REQUEST)
	ask.AddData(&nl.Genlmsg{Command: unix.ETHTOOL_MSG_CHANNELS_GET, Version: unix.ETHTOOL_GENL_VERSION})
	header := nl.NewRtAttr(unix.ETHTOOL_A_CHANNELS_HEADER|unix.NLA_F_NESTED, nil)
	header.AddRtAttr(unix.ETHTOOL_A_HEADER_DEV_INDEX, nl.Uint32Attr(uint32(index)))
	ask.AddData(header)
	answers, err := ask.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil || len(answers) != 1 || len(answers[0]) < nl.SizeofGenlmsg {
		return 0, 0
	}
	attributes, err := nl.ParseRouteAttr(answers[0][nl.SizeofGenlmsg:])
	if err != nil {
		return 0, 0
	}
	for _, a := range attributes {
		if len(a.Value) != 4 {
			continue
		}
		n := int(binary.NativeEndian.Uint32(a.Value))
		switch a.Attr.Type {
		case unix.ETHTOOL_A_CHANNELS_COMBINED_COUNT:
			rx, tx = rx+n, tx+n
		case unix.ETHTOOL_A_CHANNELS_RX_COUNT:
			rx += n
		case unix.ETHTOOL_A_CHANNELS_TX_COUNT:
			tx += n
		}
	}
	return rx, tx
}
