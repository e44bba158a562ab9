package link

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAProberThatStartsElsewhereGoesHomeWithinASecond(t *testing.T) {
	inMeshFrom(t, quiet, []string{"c:1"}, func(m *mesh) {
		time.Sleep(100 * time.Millisecond)
		for start := time.Now(); !m.a.Attached(); time.Sleep(5 * time.Millisecond) {
			if time.Since(start) > freshJitter+100*time.Millisecond {
				t.Fatalf("not at home %v after its start: %+v", time.Since(start), m.link.Stats())
			}
			if m.link.Stats().Server == "" {
				t.Fatal("it left before it was at home")
			}
		}
		time.Sleep(2 * lingerMin)
		if st := m.link.Stats(); m.c.Attached() || st.Server != "servers/a" || st.Homecomings != 1 || st.Lost != 0 {
			t.Errorf("%+v: want one session, at home", st)
		}
		if standby := m.warm(); standby == m.a {
			t.Error("its standby is its home")
		}
		m.nothingLost()
	})
}

func TestAHomeThatStartsWithTheMeshIsGoneToAtOnce(t *testing.T) {
	inMeshFrom(t, quiet, []string{"b:1", "c:1"}, func(m *mesh) {
		m.a.Healthy(false) // as a server that waits for its etcd member
		time.Sleep(12 * time.Second)
		if m.a.Attached() {
			t.Fatal("it went to a server that is not serving")
		}
		m.a.Healthy(true)
		time.Sleep(checkEvery + freshJitter + 100*time.Millisecond)
		if !m.a.Attached() {
			t.Errorf("not at home after a look and a second: %+v", m.link.Stats())
		}
		m.nothingLost()
	})
}

func TestAHomeThatComesLaterHasToBeHealthyForAWhile(t *testing.T) {
	inMeshFrom(t, quiet, []string{"b:1"}, func(m *mesh) {
		m.a.Healthy(false)
		time.Sleep(freshFor + 10*time.Second)
		m.a.Healthy(true)
		time.Sleep(homeAfter - time.Second)
		if m.a.Attached() {
			t.Error("it went to a server that had been ill without waiting")
		}
		time.Sleep(homeAfter + 3*checkEvery)
		if !m.a.Attached() {
			t.Errorf("%+v: want it at home", m.link.Stats())
		}
	})
}

func TestAHomeThatCannotBeReachedIsSaidOnce(t *testing.T) {
	var said bytes.Buffer
	inMeshFrom(t, slog.New(slog.NewTextHandler(&said, nil)), []string{"b:1"}, func(m *mesh) {
		// b knows a by an address that leads nowhere from here.
		m.a.Stop()
		time.Sleep(5 * time.Minute)
		if st := m.link.Stats(); st.Server != "servers/b" || st.HomeFault == "" {
			t.Errorf("%+v: want it at b, and what is wrong with the way home", st)
		}
		m.a.Start(m.net)
		time.Sleep(2*homeAfter + 3*checkEvery)
		if st := m.link.Stats(); st.Server != "servers/a" || st.HomeFault != "" {
			t.Errorf("%+v: want it at home", st)
		}
		m.stop()
		synctest.Wait()
		if n := strings.Count(said.String(), "does not answer from here at the address"); n != 1 {
			t.Errorf("said %d times:\n%s", n, said.String())
		}
	})
}
