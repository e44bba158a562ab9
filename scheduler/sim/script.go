package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Script is a scenario told in commands, one a line:
//
//	servers N                            first, if at all: how many servers (default 2)
//	datacenters NAME...                  one prober NAME-1 in each
//	prober NAME DATACENTER [key=value]   one more prober, with a label
//	crowd NAME N [host=H] [key=value...] checks NAME-1 to NAME-N, of one host or of one each; other keys are labels, or interval and probers
//	crowd-target NAME MODE [from=A,B]    the targets of all of them
//	receiver NAME [mesh]                 mesh: it wants incidents of the mesh too
//	check NAME [key=value...]            interval, timeout, probers, quorum, degraded=true, paused=true; again: an edit
//	delete NAME                          deletes a check
//	target NAME MODE [from=A,B]          up, down, blackhole, slow or flaky, seen from everywhere or some datacenters only
//	kill-prober NAME / start-prober NAME
//	cut NAME / mend NAME                 the prober cannot reach any server / can again
//	drain NAME / undrain NAME
//	lie NAME                             the prober sees everything fail
//	kill-leader / pause-leader / revive  revive: all servers go on
//	run DURATION                         lets time pass
//	quiet                                from now on the trace tells only of verdicts, incidents and notifications
//	status NAME / explain NAME           what the leader holds true
//	expect NAME VERDICT REASON           fails the scenario if it is otherwise
//	expect-incidents N                   open ones of checks
//	expect-told N                        how many notifications had their effect so far
//
// Nothing is lost in a script, and delays come from seed 1.
type Script struct {
	w     *World
	lines []string
	quiet bool
	n     int // servers
}

// Do carries out a command and gives what the trace said meanwhile.
func (s *Script) Do(command string) (lines []string, err error) {
	f := strings.Fields(command)
	if len(f) == 0 || strings.HasPrefix(f[0], "#") {
		return nil, nil
	}
	if f[0] == "servers" {
		s.n, err = strconv.Atoi(f[1])
		return nil, err
	}
	if s.w == nil {
		s.w = NewWorld(Options{Seed: 1, Servers: s.n, Trace: s.trace})
		s.w.Run(100 * time.Millisecond)
		s.lines = nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: %v", command, r)
		}
	}()
	err = s.do(f)
	if len(s.w.violations) > 0 {
		err = fmt.Errorf("%s: %s", command, s.w.violations[0])
	}
	lines, s.lines = s.lines, nil
	return lines, err
}

func (s *Script) trace(line string) {
	if s.quiet && (strings.Contains(line, "attaches") || strings.Contains(line, "asked to probe") || strings.Contains(line, "loses its session")) {
		return
	}
	s.lines = append(s.lines, line)
}

func (s *Script) do(f []string) error {
	w := s.w
	var uris []string
	uri := func(name string) string { return "tcp://" + name + ".example.com:443" }
	switch f[0] {
	case "datacenters":
		for _, d := range f[1:] {
			w.AddProber(d+"-1", d, "1.0")
		}
	case "prober":
		w.AddProber(f[1], f[2], "1.0")
		if len(f) > 3 {
			k, v, _ := strings.Cut(f[3], "=")
			w.probers[f[1]].labels = map[string]string{k: v}
			w.probers[f[1]].enrol()
		}
	case "crowd":
		n, err := strconv.Atoi(f[2])
		if err != nil {
			return err
		}
		w.crowd(f[1], n, f[3:])
	case "crowd-target":
		for _, n := range sorted(w.store.checks) {
			if strings.HasPrefix(n, "checks/"+f[1]+"-") {
				uris = append(uris, w.store.checks[n].value.GetUri())
			}
		}
		var from []string
		if len(f) > 3 {
			from = strings.Split(strings.TrimPrefix(f[3], "from="), ",")
		}
		w.setTargets(uris, mode(f[2]), from...)
	case "receiver":
		w.store.putReceiver(&meshv1.Receiver{Name: "receivers/" + f[1], MeshIncidents: len(f) > 2})
	case "check":
		return s.check(f[1], f[2:])
	case "delete":
		w.deleteCheck("checks/" + f[1])
	case "target":
		var from []string
		if len(f) > 3 {
			from = strings.Split(strings.TrimPrefix(f[3], "from="), ",")
		}
		w.setTarget(uri(f[1]), mode(f[2]), from...)
	case "run":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			return err
		}
		w.Run(d)
	case "quiet":
		s.quiet = true
	case "kill-prober", "start-prober", "cut", "mend", "drain", "undrain", "lie":
		return s.prober(f[0], f[1])
	case "kill-leader", "pause-leader", "revive":
		s.server(f[0])
	default:
		return s.ask(f)
	}
	return nil
}

func (s *Script) check(name string, options []string) error {
	c := newCheck(name, time.Minute, 10*time.Second, 0, 0)
	if old, ok := s.w.store.checks[c.GetName()]; ok {
		c = proto.CloneOf(old.value)
	}
	for _, o := range options {
		k, v, _ := strings.Cut(o, "=")
		d, _ := time.ParseDuration(v)
		n, _ := strconv.Atoi(v)
		switch k {
		case "interval":
			c.Interval.Seconds = int64(d.Seconds())
		case "timeout":
			c.Timeout.Seconds = int64(d.Seconds())
		case "probers":
			c.Probers = int32(n)
		case "quorum":
			c.Quorum = int32(n)
		case "degraded":
			c.AlertOnDegraded = v == "true"
		case "paused":
			c.Paused = v == "true"
		default:
			return fmt.Errorf("check: no option %q", k)
		}
	}
	s.w.putCheck(c)
	return nil
}

func (s *Script) prober(verb, name string) error {
	p := s.w.probers[name]
	if p == nil {
		return fmt.Errorf("no prober %q", name)
	}
	switch verb {
	case "kill-prober":
		p.die()
	case "start-prober":
		p.start()
	case "cut":
		p.cut = true
		p.detach("it is cut off")
	case "mend":
		p.cut, p.lying = false, false
		p.attach()
	case "drain", "undrain":
		p.drained = verb == "drain"
		p.enrol()
	case "lie":
		p.lying = true
	}
	return nil
}

func (s *Script) server(verb string) {
	switch {
	case verb == "kill-leader" && s.w.leader != nil:
		s.w.leader.kill()
	case verb == "pause-leader" && s.w.leader != nil:
		s.w.leader.pause()
	case verb == "revive":
		for _, v := range s.w.servers {
			if !v.alive {
				s.w.log("server %s starts", v.name)
				v.start()
			} else if v.paused {
				v.resume()
			}
		}
	}
}

func (s *Script) ask(f []string) error {
	w := s.w
	switch f[0] {
	case "expect-incidents":
		n := 0
		for k := range w.store.open {
			if isCheck(k) {
				n++
			}
		}
		if strconv.Itoa(n) != f[1] {
			return fmt.Errorf("%d incidents of checks are open, expected %s", n, f[1])
		}
		return nil
	case "expect-told":
		if n := strconv.Itoa(len(w.hook.effects)); n != f[1] {
			return fmt.Errorf("%s notifications had their effect, expected %s", n, f[1])
		}
		return nil
	}
	if w.leader == nil {
		return fmt.Errorf("%s: nobody leads", f[0])
	}
	mind := w.leader.mind
	st, ok := mind.Status("checks/"+f[1], w.now, true)
	if !ok {
		return fmt.Errorf("no check %q", f[1])
	}
	switch f[0] {
	case "status":
		s.lines = append(s.lines, fmt.Sprintf("%s is %s: %s", st.GetCheck(), st.GetVerdict(), st.GetSummary()))
	case "explain":
		e, _ := mind.Explain("checks/"+f[1], w.now)
		for _, l := range strings.Split(e.GetText(), "\n") {
			if l != "" {
				s.lines = append(s.lines, l)
			}
		}
	case "expect":
		if got := st.GetVerdict().String() + " " + st.GetReason().String(); got != f[2]+" "+f[3] {
			return fmt.Errorf("%s is %s, expected %s %s", f[1], got, f[2], f[3])
		}
	default:
		return fmt.Errorf("no command %q", f[0])
	}
	return nil
}
