package scheduler

// Together are opened, changed or closed incidents of a group's members, of which nobody is told: so many as fit into one transaction of etcd. When that does not succeed they
// are to be carried out one by one, since one of them may be at fault.
type Together struct {
	// Actions are Open and Resolve, at most maxTogether of them, without outbox, each of another key.
	Actions []Action
}

func (Together) action() {}

// maxTogether is as many as keep below the 120 operations that the store allows itself in a transaction: each has at most three comparisons or writes.
const maxTogether = 38

// silent tells whether an action is about a member of a group and tells nobody anything.
func silent(a Action) bool {
	switch a := a.(type) {
	case Open:
		return a.Incident.GetIncident().GetGroup() != "" && len(a.Outbox) == 0
	case Resolve:
		return a.Incident.GetIncident().GetGroup() != "" && len(a.Outbox) == 0
	}
	return false
}

// combine puts what is silent into as few actions as can be, after all others.
func (s *State) combine() {
	n := 0
	for _, a := range s.actions {
		if silent(a) {
			n++
		}
	}
	if n < 2 {
		return
	}
	var quiet []Action
	rest := s.actions[:0]
	for _, a := range s.actions {
		if silent(a) {
			quiet = append(quiet, a)
		} else {
			rest = append(rest, a)
		}
	}
	s.actions = rest
	for len(quiet) > 0 {
		k := min(maxTogether, len(quiet))
		s.do(Together{Actions: quiet[:k:k]})
		quiet = quiet[k:]
	}
}
