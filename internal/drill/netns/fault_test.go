package netns

import (
	"testing"
	"testing/synctest"
	"time"
)

// carried runs packets through a line under a path and returns those that arrived, with the time that each took.
func carried(t *testing.T, l *line, n int) (order []byte, took []time.Duration) {
	t.Helper()
	begin := time.Now()
	for i := range n {
		l.send([]byte{byte(i)}, func(p []byte) { order, took = append(order, p[0]), append(took, time.Since(begin)) })
	}
	time.Sleep(time.Minute + time.Second)
	synctest.Wait()
	return order, took
}

func bubble(t *testing.T, f func(t *testing.T, l *line)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l, done, ended := newLine(1), make(chan struct{}), make(chan struct{})
		go func() { l.run(done); close(ended) }()
		f(t, l)
		close(done)
		<-ended
	})
}

func TestASoundPathCarriesEverythingAtOnceAndInOrder(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, l *line) {
		order, took := carried(t, l, 200)
		for i, b := range order {
			if int(b) != i || took[i] != 0 {
				t.Fatalf("packet %d came as number %d after %s", b, i, took[i])
			}
		}
		if len(order) != 200 || l.carried.Load() != 200 {
			t.Errorf("%d of 200 packets arrived, %d counted", len(order), l.carried.Load())
		}
	})
}

func TestADelayedPathKeepsOrderAlsoWhenTheDelayEnds(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, l *line) {
		var order []byte
		var last time.Duration
		begin := time.Now()
		take := func(p []byte) { order, last = append(order, p[0]), time.Since(begin) }
		l.path.Store(&Path{Delay: 300 * time.Millisecond})
		l.send([]byte{0}, take)
		l.send([]byte{1}, take)
		time.Sleep(299 * time.Millisecond)
		synctest.Wait()
		if len(order) != 0 {
			t.Errorf("%v arrived before the delay had passed", order)
		}
		l.path.Store(&Path{})
		l.send([]byte{2}, take) // behind those on the way
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if string(order) != "\x00\x01\x02" || last != 300*time.Millisecond {
			t.Errorf("%v arrived, the last after %s; want 0 1 2 after 300ms", order, last)
		}
	})
}

func TestACutLosesWhatIsOnTheWayToo(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, l *line) {
		l.path.Store(&Path{Delay: time.Second})
		l.send([]byte{0}, func([]byte) { t.Error("a packet came through a cut") })
		l.path.Store(&Path{Drop: true})
		l.send([]byte{1}, func([]byte) { t.Error("a packet came through a cut") })
		time.Sleep(time.Minute)
		synctest.Wait()
		if l.lost.Load() != 2 || l.carried.Load() != 0 {
			t.Errorf("%d lost, %d carried; want 2 and 0", l.lost.Load(), l.carried.Load())
		}
	})
}

func TestALossyPathLosesItsShareByTheSeed(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, l *line) {
		l.path.Store(&Path{Loss: 0.25})
		for range 10000 {
			l.send([]byte{0}, func([]byte) {})
		}
		if lost := l.lost.Load(); lost < 2300 || lost > 2700 || lost+l.carried.Load() != 10000 {
			t.Errorf("%d of 10000 lost and %d carried, want about 2500 and the rest", lost, l.carried.Load())
		}
	})
}

func TestAFullPathSaysSo(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, l *line) {
		l.path.Store(&Path{Delay: time.Second})
		for range queueLimit + 100 {
			l.send([]byte{0}, func([]byte) {})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if over := l.overflow.Load(); over < 99 || over > 100 || over+l.carried.Load() != queueLimit+100 { // one may be out of the queue and wait
			t.Errorf("%d overflowed and %d carried of %d", over, l.carried.Load(), queueLimit+100)
		}
	})
}

func TestAFaultOutOfRangeIsRefused(t *testing.T) {
	t.Parallel()
	for _, f := range []Fault{{In: Path{Delay: -1}}, {Out: Path{Delay: time.Hour}}, {In: Path{Loss: 1.1}}, {Out: Path{Loss: -0.1}}} {
		if err := f.Validate(); err == nil {
			t.Errorf("%+v was accepted", f)
		}
	}
	for _, f := range []Fault{{}, Cut(), Slow(time.Second, 0.5)} {
		if err := f.Validate(); err != nil {
			t.Error(err)
		}
	}
}
