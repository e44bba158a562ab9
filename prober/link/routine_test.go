package link

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// TestUnchangedResultsGoAsTheyWereEncoded puts results of many sizes in, takes some out meanwhile, and decodes all that was sent.
func TestUnchangedResultsGoAsTheyWereEncoded(t *testing.T) {
	const frame = 2000
	o := newOutbox()
	o.open(nil, frame)
	o.flush()
	var got []*meshv1.Result
	send := func() bool {
		m, _ := o.next(o.routineSince)
		if m == nil {
			return false
		}
		wire, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if len(wire) > frame+frameRoom {
			t.Errorf("a message has %d bytes", len(wire))
		}
		back := &meshv1.ProberMessage{}
		if err := proto.Unmarshal(wire, back); err != nil {
			t.Fatal(err)
		}
		if back.GetResults().GetKind() != meshv1.ResultBatch_LIVE {
			t.Errorf("the batch is %v", back.GetResults().GetKind())
		}
		got = append(got, back.GetResults().GetResults()...)
		return true
	}
	const all = 1000
	for i := range all {
		r := &meshv1.Result{Check: fmt.Sprint("checks/c", i), Sequence: uint64(i + 1), Outcome: meshv1.Result_OK, Error: strings.Repeat("x", i*7%1500)}
		encoded, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if !o.add(encoded) {
			t.Fatalf("result %d is not taken", i)
		}
		clear(encoded) // it is the caller's
		if i%37 == 0 {
			send()
		}
	}
	if d := o.depth(); d[Routine] == 0 || d[Routine] != all-len(got) {
		t.Errorf("%d wait and %d were sent, of %d", d[Routine], len(got), all)
	}
	for send() {
	}
	if len(got) != all {
		t.Fatalf("%d results of %d came", len(got), all)
	}
	for i, r := range got {
		if r.GetSequence() != uint64(i+1) || r.GetCheck() != fmt.Sprint("checks/c", i) || len(r.GetError()) != i*7%1500 {
			t.Fatalf("result %d is %v", i, r)
		}
	}
}

func TestAnUnchangedResultLargerThanAFrameGoesByItself(t *testing.T) {
	o := newOutbox()
	if o.add(make([]byte, frameBytes)) {
		t.Error("it was taken")
	}
	if !o.push(&meshv1.Result{Error: strings.Repeat("x", frameBytes)}, Routine) {
		t.Error("it was refused")
	}
	o.flush()
	if m, _ := o.next(o.routineSince); len(m.GetResults().GetResults()) != 1 {
		t.Errorf("the message is %v", m)
	}
}

func TestTooManyUnchangedResultsAreRefused(t *testing.T) {
	o := newOutbox()
	for range queueMax[Routine] {
		if !o.add([]byte{1}) {
			t.Fatal("refused too early")
		}
	}
	if o.add([]byte{1}) {
		t.Error("one too many was taken")
	}
}

// A server that takes as much as comes, and no more, leaves the queue never empty: what was sent long ago must not be kept for that.
func TestWhatWasSentIsLetGoOfThoughOthersAlwaysWait(t *testing.T) {
	o := newOutbox()
	o.flush()
	encoded := make([]byte, 1000)
	for range 100 {
		o.add(encoded)
	}
	waiting := len(o.routine.bytes)
	for range 2000 {
		m, _ := o.next(o.routineSince)
		if m == nil {
			t.Fatal("nothing is sent")
		}
		for o.depth()[Routine] < 100 {
			if !o.add(encoded) {
				t.Fatal("a result is refused")
			}
		}
	}
	if len(o.routine.bytes) != waiting || cap(o.routine.bytes) > 4*waiting {
		t.Errorf("%d bytes are kept in %d, of which %d wait", len(o.routine.bytes), cap(o.routine.bytes), waiting)
	}
}
