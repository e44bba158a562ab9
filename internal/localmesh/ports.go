package localmesh

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports that free addresses are taken from: below the range from which Linux (32768) and the BSDs (49152) take ports for outgoing connections, so that nobody is
// given the port of a process that is down for the moment. Those of meshes come in blocks, each held by one mesh; single ones come from above them.
const (
	firstPort  = 12000
	blockPorts = 24 // one that holds the block, and four for each of MaxDatacenters servers, with some to spare for those that are taken
	blocks     = 500
	firstLoose = firstPort + blocks*blockPorts
	lastPort   = 30000
)

// FreeAddress is an address of 127.0.0.1 at which nothing listens now, and which no outgoing connection and no mesh will be given. Whoever asks listens there at
// once: the next to ask may be given the same one otherwise.
func FreeAddress() (string, error) {
	for range 1000 {
		address := local(firstLoose + rand.IntN(lastPort-firstLoose))
		if isFree(address) {
			return address, nil
		}
	}
	return "", errors.New("no free port was found on 127.0.0.1 in 1000 attempts; stop something that listens")
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func isFree(address string) bool {
	l, err := net.Listen("tcp", address)
	return err == nil && l.Close() == nil
}

// block is a row of ports of 127.0.0.1 that belong to one mesh, also while its processes are down: whoever listens at the first of them holds the others. So two
// meshes that start at the same moment, in whatever processes, are never given the same port. The holder's end gives it back, however it ends.
type block struct {
	guard net.Listener
	next  int // the port that is tried next
}

// claimBlock holds a block that nobody holds.
func claimBlock() (*block, error) {
	for range 1000 {
		if b, err := holdBlock(firstPort + blockPorts*rand.IntN(blocks)); err == nil {
			return b, nil
		}
	}
	return nil, errors.New("no free ports for a mesh were found on 127.0.0.1 in 1000 attempts; choose some with --grpc-listen and --http-listen, or stop something that listens")
}

// holdBlock holds the block that begins at first. It fails when another does.
func holdBlock(first int) (*block, error) {
	l, err := net.Listen("tcp", local(first))
	if err != nil {
		return nil, err
	}
	return &block{guard: l, next: first + 1}, nil
}

// first is the port by which the block is held.
func (b *block) first() int { return b.guard.Addr().(*net.TCPAddr).Port }

// take is the next address of the block at which nothing listens now. It is given once.
func (b *block) take() (string, error) {
	for b.next < b.first()+blockPorts {
		address := local(b.next)
		b.next++
		if isFree(address) {
			return address, nil
		}
	}
	return "", fmt.Errorf("too many of the ports %d to %d are taken; try again, or choose ports with --grpc-listen and --http-listen", b.first(), b.first()+blockPorts-1)
}

// release gives the block back. It may be called twice, and for none.
func (b *block) release() {
	if b != nil {
		_ = b.guard.Close()
	}
}
