package localmesh

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports that free addresses are taken from: below the range from which Linux (32768) and the BSDs (49152) take ports for outgoing connections, so that nobody is
// given the port of a process that is down for the moment.
const (
	firstPort = 12000
	lastPort  = 30000
)

// FreeAddress is an address of 127.0.0.1 at which nothing listens now, and which no outgoing connection will be given.
func FreeAddress() (string, error) {
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(lastPort-firstPort))
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port was found on 127.0.0.1 in 1000 attempts; stop something that listens")
}
