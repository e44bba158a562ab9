package health

import (
	"slices"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// aboutServers finds servers that are silent, cut off from each other, behind, or of another build.
func (e *evaluation) aboutServers() {
	var silent, heard []Server
	for _, s := range e.f.Servers {
		switch {
		case s.Self:
		case s.Silence >= SilentLimit:
			silent = append(silent, s)
		default:
			heard = append(heard, s)
		}
	}
	// One other server that is silent is most likely down; two at once, and etcd with them, are most likely this server's own trouble.
	if len(heard) == 0 && len(silent) >= 2 && !e.f.Etcd.LostSince.IsZero() {
		e.add(isolated, 0, []string{e.f.Server},
			"Server %s hears none of the %d other servers, nor etcd: it is cut off, or they are all down. What it says about anybody else may be old.",
			spec.ID(e.f.Server), len(silent))
	}
	e.silentServers(silent)
	e.cuts(heard)
	e.behind()
	versions := map[string]bool{}
	for _, s := range e.f.Servers {
		if s.heard() && s.Version != "" {
			versions[s.Version] = true
		}
	}
	if len(versions) > 1 {
		var all, subjects []string
		for v := range versions {
			all = append(all, v)
		}
		for _, s := range e.f.Servers {
			if s.heard() {
				subjects = append(subjects, s.Name)
			}
		}
		e.add(buildsDiffer, 0, subjects, "The servers run %d builds: %s.", len(versions), names(all))
	}
}

// silentServers tells those apart whose whole datacenter is silent: nobody of it is heard, server or prober.
func (e *evaluation) silentServers(silent []Server) {
	var alone, withPlace []string
	var longest Server
	for _, s := range silent {
		if s.Silence > longest.Silence {
			longest = s
		}
		if e.f.SeesProbers && e.placeSilent(s.Datacenter) {
			withPlace = append(withPlace, s.Name)
		} else {
			alone = append(alone, s.Name)
		}
	}
	say := func(list []string, because meshv1.Condition_Code) {
		if len(list) == 0 {
			return
		}
		why := "its address does not answer"
		if len(silent) == 1 && silent[0].Refused {
			why = "nothing listens at its address"
		}
		if len(list) > 1 {
			e.add(serverSilent, because, list, "The servers %s are silent.", names(list))
			return
		}
		for _, s := range silent {
			if s.Name == list[0] {
				e.add(serverSilent, because, list, "Server %s has been silent for %s; %s.", spec.ID(s.Name), span(s.Silence), why)
			}
		}
	}
	say(alone, 0)
	say(withPlace, datacenterSilent)
}

// placeSilent tells whether a datacenter has probers that should be heard, and neither one of them nor a server there is.
func (e *evaluation) placeSilent(datacenter string) bool {
	probers := 0
	for _, p := range e.f.Probers {
		if p.GetDatacenter() != datacenter || p.GetState() == meshv1.Prober_DRAINED {
			continue
		}
		if p.GetState() == meshv1.Prober_ONLINE {
			return false
		}
		probers++
	}
	for _, s := range e.f.Servers {
		if s.Datacenter == datacenter && (s.Self || s.Silence < SilentLimit) {
			return false
		}
	}
	return probers > 0
}

// cuts finds pairs of servers that are alive and do not hear each other.
func (e *evaluation) cuts(heard []Server) {
	alive := func(name string) bool {
		return name == e.f.Server || slices.ContainsFunc(heard, func(s Server) bool { return s.Name == name })
	}
	var subjects []string
	first := ""
	for _, s := range append(slices.Clone(heard), e.self()) {
		for _, missed := range s.Misses {
			if s.Name == "" || missed == s.Name || !alive(missed) {
				continue
			}
			subjects = append(subjects, s.Name, missed)
			if first == "" {
				first = spec.ID(s.Name) + " does not hear " + spec.ID(missed)
			}
		}
	}
	if subjects != nil {
		e.add(peersCut, 0, subjects, "Servers that are alive do not hear each other: %s.", first)
	}
}

// self is this server as one of all.
func (e *evaluation) self() Server {
	for _, s := range e.f.Servers {
		if s.Self {
			return s
		}
	}
	return Server{}
}

// behind finds servers whose copy of the state, or whose history, stands still behind that of others.
func (e *evaluation) behind() {
	newest := int64(0)
	for _, s := range e.f.Servers {
		newest = max(newest, s.Revision)
	}
	var state, lacking []string
	lag, results := int64(0), int64(0)
	for _, s := range e.f.Servers {
		if !s.heard() || !s.Beat {
			continue
		}
		if s.Revision < newest && !s.RevisionSince.IsZero() && e.now.Sub(s.RevisionSince) >= BehindLimit {
			state, lag = append(state, s.Name), max(lag, newest-s.Revision)
		}
		if s.HistoryLag > 0 && s.HistoryStuck >= HistoryLimit {
			lacking, results = append(lacking, s.Name), results+s.HistoryLag
		}
	}
	if state != nil {
		e.add(stateBehind, 0, state, "The state that %s %s got from etcd is %d revisions old and does not get newer.", names(state), have(len(state)), lag)
	}
	if lacking != nil {
		e.add(historyBehind, 0, lacking, "The history of %s lacks %s of %s and does not get them.", names(lacking), count(int(results), "result"), spec.ID(e.f.Server))
	}
}

func does(n int) string {
	if n == 1 {
		return "does"
	}
	return "do"
}

// aboutEtcd finds what is wrong with the cluster.
func (e *evaluation) aboutEtcd() {
	etcd := e.f.Etcd
	var down, voters, joining []string
	var byServer []string
	for _, m := range etcd.Members {
		if !m.Learner {
			voters = append(voters, m.Name)
		}
		if m.Healthy {
			continue
		}
		if m.Learner { // nothing depends on it yet
			joining = append(joining, "etcd/"+orID(m))
			continue
		}
		if e.silent(spec.Name(spec.Servers, m.Name)) {
			byServer = append(byServer, "etcd/"+orID(m))
		} else {
			down = append(down, "etcd/"+orID(m))
		}
	}
	lost := len(down) + len(byServer)
	spare := max((len(voters)-1)/2-lost, 0)
	say := func(list []string, because meshv1.Condition_Code) {
		if list == nil {
			return
		}
		after := "with one more, nothing can be decided any more"
		switch {
		case lost > (len(voters)-1)/2:
			after = "too many for decisions"
		case spare > 0:
			after = "it survives the loss of " + count(spare, "more member")
		}
		e.add(etcdMemberDown, because, list, "%s of etcd %s down (%s); %d of %d answer: %s.", count(len(list), "member"), are(len(list)), names(list), len(voters)-lost, len(voters), after)
	}
	say(down, 0)
	if lost == 0 && joining != nil {
		e.add(etcdMemberDown, 0, joining, "%s of etcd that %s to join %s not answer (%s); without a vote so far, so nothing depends on it.", count(len(joining), "member"), are(len(joining)), does(len(joining)), names(joining))
	}
	say(byServer, serverSilent)
	if len(etcd.Alarms) > 0 {
		e.add(etcdAlarm, 0, nil, "etcd has raised the alarm %s.", names(etcd.Alarms))
	}
	if !etcd.LostSince.IsZero() {
		because := meshv1.Condition_CODE_UNSPECIFIED
		if lost > 0 && lost > (len(voters)-1)/2 {
			because = etcdMemberDown
		}
		since(e.add(etcdLost, because, nil, "etcd has not answered %s for %s: nothing is opened, resolved or sent from here.", spec.ID(e.f.Server), span(e.now.Sub(etcd.LostSince))), etcd.LostSince)
	}
	var others []string
	for _, s := range e.f.Servers {
		if s.heard() && !s.Self && !s.EtcdLostSince.IsZero() {
			others = append(others, s.Name)
		}
	}
	if others != nil && etcd.LostSince.IsZero() {
		c := e.add(etcdLost, 0, others, "etcd answers %s, but not %s.", spec.ID(e.f.Server), names(others))
		c.Severity = warning
	}
	if etcd.Slow >= SlowLimit {
		e.add(etcdSlow, 0, nil, "etcd takes %s to answer %s.", span(etcd.Slow), spec.ID(e.f.Server))
	}
}

func orID(m Member) string {
	if m.Name != "" {
		return m.Name
	}
	return m.ID
}

// silent tells whether the server is known and silent.
func (e *evaluation) silent(name string) bool {
	return slices.ContainsFunc(e.f.Servers, func(s Server) bool { return s.Name == name && !s.Self && s.Silence >= SilentLimit })
}
