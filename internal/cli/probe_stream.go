package cli

import (
	"fmt"
	"strings"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// exchanged lists what was sent and received over tcp, udp or a WebSocket, a line for each.
func exchanged(r *meshv1.Result) []string {
	var out []string
	if t := r.GetTcp(); t != nil {
		out = append(out, fmt.Sprintf("%s sent, %s received", count(int(t.GetBytesSent()), "byte"), count(int(t.GetBytesReceived()), "byte")))
	}
	if u := r.GetUdp(); u != nil && r.GetTcp() == nil {
		line := fmt.Sprintf("%d of %s answered", u.GetReceived(), count(int(u.GetSent()), "datagram"))
		if u.GetReceived() > 0 {
			line += fmt.Sprintf(", round trip %s to %s, %s in the mean", brief(u.GetRttMin()), brief(u.GetRttMax()), brief(u.GetRttAvg()))
		}
		if u.GetUnmatched() > 0 {
			line += fmt.Sprintf(", %s not as expected", count(int(u.GetUnmatched()), "answer"))
		}
		out = append(out, line)
	}
	if w := r.GetWebsocket(); w != nil {
		parts := []string{fmt.Sprintf("WebSocket %d", w.GetStatus())}
		if w.GetSubprotocol() != "" {
			parts = append(parts, "subprotocol "+w.GetSubprotocol())
		}
		if w.GetCompressed() {
			parts = append(parts, "compressed")
		}
		parts = append(parts, fmt.Sprintf("%s sent, %d received", count(int(w.GetMessagesSent()), "message"), w.GetMessagesReceived()))
		if w.GetPingRtt() != nil {
			parts = append(parts, "pong after "+brief(w.GetPingRtt()))
		}
		if w.GetCloseCode() != 0 {
			parts = append(parts, fmt.Sprintf("closed with %d", w.GetCloseCode()))
		}
		out = append(out, strings.Join(parts, ", "))
	}
	return out
}
