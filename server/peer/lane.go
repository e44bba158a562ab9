package peer

import (
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// frameBytes is what a message should stay under: on a link of 1 Mbit/s it takes a quarter of a second, which a beat can wait.
	frameBytes = 32 << 10
	// votesMax is how many results one message has at most.
	votesMax = 500
	// laneMax is how many results and presences wait for one follower at most. Beyond it, a snapshot is cheaper.
	laneMax = 20_000
)

// item is a presence, or results that may be votes. It is shared by all followers.
type item struct {
	presence *peerv1.Presence
	votes    *votes
}

func (i item) size() int {
	if i.votes != nil {
		return len(i.votes.results)
	}
	return 1
}

// votes are encoded once, whoever follows.
type votes struct {
	results []*meshv1.Result
	once    sync.Once
	encoded [][]byte
}

func (v *votes) bytes() [][]byte {
	v.once.Do(func() {
		v.encoded = make([][]byte, 0, len(v.results))
		for _, r := range v.results {
			b, err := proto.Marshal(r)
			if err != nil {
				b = nil // it came in a message, so it can go in one
			}
			v.encoded = append(v.encoded, b)
		}
	})
	return v.encoded
}

// raw gives a message the content that protobuf would give it if field had these encoded messages: they are not decoded for that.
func raw[M proto.Message](m M, field protowire.Number, encoded [][]byte) M {
	n := 0
	for _, b := range encoded {
		n += len(b) + 6
	}
	all := make([]byte, 0, n)
	for _, b := range encoded {
		all = protowire.AppendTag(all, field, protowire.BytesType)
		all = protowire.AppendBytes(all, b)
	}
	m.ProtoReflect().SetUnknown(all)
	return m
}

const (
	fieldVotesResults   = 1
	fieldHistoryEntries = 2
)

// lane is what of presence and votes waits for one follower, in order. Safe for concurrent use.
type lane struct {
	mu      sync.Mutex
	queue   []item
	waiting int
	stale   bool // something was left out: a snapshot is needed
}

// put adds an item; it returns how many results were left out for that, because too many wait.
func (l *lane) put(i item) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stale {
		return i.size()
	}
	if l.waiting+i.size() > laneMax {
		left := l.waiting + i.size()
		l.queue, l.waiting, l.stale = nil, 0, true
		return left
	}
	l.queue = append(l.queue, i)
	l.waiting += i.size()
	return 0
}

// take gives what waits. It counts as waiting until it is sent.
func (l *lane) take() (queue []item, stale bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	queue, l.queue = l.queue, nil
	return queue, l.stale
}

func (l *lane) sent(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = max(0, l.waiting-n)
}

// restart begins a snapshot: what is put from here on comes after it.
func (l *lane) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue, l.waiting, l.stale = nil, 0, false
}

// output is the sending side of a lane: of the sending goroutine alone.
type output struct {
	lane      *lane
	presences []*peerv1.Presence // of a snapshot
	begun     bool               // its first message has been sent
	ending    bool               // a snapshot's presences are not all sent
	votes     [][]byte           // encoded, to be sent before the items
	snapshot  int                // of those, how many are the snapshot's
	items     []item
	carried   int // votes in the last message
}

// next gives the next message, nil when there is none. local gives a snapshot.
func (o *output) next(local func() ([]*peerv1.Presence, []*meshv1.Result)) *peerv1.FollowResponse {
	items, stale := o.lane.take()
	if stale {
		o.lane.restart()
		presences, results := local()
		*o = output{lane: o.lane, presences: presences, ending: true, votes: (&votes{results: results}).bytes(), snapshot: len(results)}
		items = nil
	}
	o.items = append(o.items, items...)
	switch {
	case o.ending:
		return o.snapshotPresences()
	case len(o.votes) > 0:
		return o.someVotes()
	}
	for len(o.items) > 0 && len(o.votes) < votesMax && o.items[0].votes != nil {
		o.votes = append(o.votes, o.items[0].votes.bytes()...)
		o.items = o.items[1:]
	}
	if len(o.votes) > 0 {
		return o.someVotes()
	}
	if len(o.items) == 0 {
		return nil
	}
	var list []*peerv1.Presence
	size := 0
	for len(o.items) > 0 && o.items[0].presence != nil {
		x := o.items[0].presence
		if size += proto.Size(x) + 6; size > frameBytes && len(list) > 0 {
			break
		}
		list, o.items = append(list, x), o.items[1:]
	}
	o.lane.sent(len(list))
	return &peerv1.FollowResponse{Message: &peerv1.FollowResponse_Presences{Presences: &peerv1.Presences{Presences: list}}}
}

func (o *output) snapshotPresences() *peerv1.FollowResponse {
	n, size := 0, 0
	for n < len(o.presences) {
		if size += proto.Size(o.presences[n]) + 6; size > frameBytes && n > 0 {
			break
		}
		n++
	}
	m := &peerv1.Presences{First: !o.begun, Last: n == len(o.presences), Presences: o.presences[:n:n]}
	o.presences, o.begun, o.ending = o.presences[n:], true, !m.GetLast()
	return &peerv1.FollowResponse{Message: &peerv1.FollowResponse_Presences{Presences: m}}
}

func (o *output) someVotes() *peerv1.FollowResponse {
	n, size := 0, 0
	for n < len(o.votes) && n < votesMax {
		if size += len(o.votes[n]) + 6; size > frameBytes && n > 0 {
			break
		}
		n++
	}
	m := raw(&peerv1.Votes{}, fieldVotesResults, o.votes[:n])
	o.votes = o.votes[n:]
	snapshot := min(n, o.snapshot)
	o.snapshot -= snapshot
	o.lane.sent(n - snapshot)
	o.carried = n
	return &peerv1.FollowResponse{Message: &peerv1.FollowResponse_Votes{Votes: m}}
}
