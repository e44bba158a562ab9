package health

import (
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Thresholds. Each says why it is not less.
const (
	// SkewLimit is how far a clock may be off. Corrections hold to a few milliseconds; half a second shows in timelines and moves probes out of their phase.
	SkewLimit = 500 * time.Millisecond
	// SlowLimit is the median time of etcd's answers from which on it is slow: ten times what a good SSD and 20 ms between datacenters make.
	SlowLimit = 250 * time.Millisecond
	// OwedLimit is how long a notification may be owed: longer than a healthy receiver's worst timeout and the first retries.
	OwedLimit = time.Minute
	// BehindLimit is how long a server's copy of the state may stand still behind that of others: several watch progress messages of a quiet mesh.
	BehindLimit = 15 * time.Second
	// HistoryLimit is how long a server may take nothing of the results that it lacks.
	HistoryLimit = time.Minute
	// TurnedAwayLimit is how long a process must have been turned away: a prober that is started anew is, while its former process is missed for three seconds, and
	// tries again every ten seconds at the latest.
	TurnedAwayLimit = 15 * time.Second
	// StuckLimit is how long a leader's write may wait for etcd: longer than an etcd election at default ticks.
	StuckLimit = 5 * time.Second
	// SilentLimit is how long a server may be silent before it counts as such here; three seconds later than its probers are looked for elsewhere.
	SilentLimit = 3 * time.Second
	// FullBytes and LowBytes are what must be free on the disk: what the embedded etcd needs to go on, and room for a day of a busy mesh.
	FullBytes = 32 << 20
	LowBytes  = 512 << 20
)

// rule is what is fixed about a code.
type rule struct {
	code     meshv1.Condition_Code
	severity meshv1.Condition_Severity
	// after is how long it must hold before it is shown, until how long it must be gone before it is not shown any more.
	after, until time.Duration
	// causes explain it, the first that holds.
	// What depends on whom it is about, such as a prober of a silent datacenter, is said where it is found.
	causes []meshv1.Condition_Code
	remedy string
}

// Short names, so that the table fits the screen.
const (
	info     = meshv1.Condition_INFO
	warning  = meshv1.Condition_WARNING
	critical = meshv1.Condition_CRITICAL

	isolated            = meshv1.Condition_ISOLATED
	etcdLost            = meshv1.Condition_ETCD_LOST
	etcdSlow            = meshv1.Condition_ETCD_SLOW
	etcdMemberDown      = meshv1.Condition_ETCD_MEMBER_DOWN
	etcdAlarm           = meshv1.Condition_ETCD_ALARM
	noLeader            = meshv1.Condition_NO_LEADER
	leaderDisputed      = meshv1.Condition_LEADER_DISPUTED
	leaderBlind         = meshv1.Condition_LEADER_BLIND
	leaderStuck         = meshv1.Condition_LEADER_STUCK
	serverSilent        = meshv1.Condition_SERVER_SILENT
	peersCut            = meshv1.Condition_PEERS_CUT
	stateBehind         = meshv1.Condition_STATE_BEHIND
	buildsDiffer        = meshv1.Condition_BUILDS_DIFFER
	noDatacenterQuorum  = meshv1.Condition_NO_DATACENTER_QUORUM
	datacenterSilent    = meshv1.Condition_DATACENTER_SILENT
	proberSilent        = meshv1.Condition_PROBER_SILENT
	proberNetwork       = meshv1.Condition_PROBER_NETWORK_FAILING
	noProber            = meshv1.Condition_NO_PROBER
	assignmentsBehind   = meshv1.Condition_ASSIGNMENTS_BEHIND
	assignmentsRefused  = meshv1.Condition_ASSIGNMENTS_REFUSED
	resultsDropped      = meshv1.Condition_RESULTS_DROPPED
	clockSkew           = meshv1.Condition_CLOCK_SKEW
	turnedAway          = meshv1.Condition_PROBER_TURNED_AWAY
	mistimed            = meshv1.Condition_RESULTS_MISTIMED
	setAside            = meshv1.Condition_PROBERS_SET_ASIDE
	checksBlind         = meshv1.Condition_CHECKS_BLIND
	checksUnsatisfiable = meshv1.Condition_CHECKS_UNSATISFIABLE
	checksForbidden     = meshv1.Condition_CHECKS_FORBIDDEN
	outboxStuck         = meshv1.Condition_OUTBOX_STUCK
	receiverFailing     = meshv1.Condition_RECEIVER_FAILING
	noMeshReceiver      = meshv1.Condition_NO_MESH_RECEIVER
	historyUnavailable  = meshv1.Condition_HISTORY_UNAVAILABLE
	historyBehind       = meshv1.Condition_HISTORY_BEHIND
	diskFull            = meshv1.Condition_DISK_FULL
	diskLow             = meshv1.Condition_DISK_LOW
	diskStalled         = meshv1.Condition_DISK_STALLED
	deadManFailing      = meshv1.Condition_DEAD_MAN_FAILING
)

// rules is the table of all codes, in the order in which an operator mends equally bad ones.
func rules() []rule {
	type codes = []meshv1.Condition_Code
	const s, m = time.Second, time.Minute
	return []rule{
		{diskFull, critical, 0, 5 * s, nil, "Make room on the disk of that server's data directory; it begins anew by itself."},
		{isolated, critical, 5 * s, 5 * s, nil, "Ask another server with --server. If it answers, mend this one's network; if none does, start the others: most of them must run."},
		{etcdAlarm, critical, 5 * s, 10 * s, codes{diskFull},
			"NOSPACE: delete what is not needed, then run etcdctl compact, defrag and alarm disarm. CORRUPT: replace the member that disagrees with the others."},
		{diskStalled, warning, 2 * s, 15 * s, nil, "Look at the disk and its controller (dmesg, iostat). If the server leads, `probemesh stepdown` hands over to another one."},
		{serverSilent, warning, 5 * s, 5 * s, codes{isolated},
			"Start it, or mend its network. If it is gone for good, take its member out of the etcd cluster; docs/operations.md says how."},
		{etcdMemberDown, warning, 10 * s, 10 * s, codes{isolated, diskFull},
			"Start the member, or mend its network. While it is down, the cluster survives the loss of one member less."},
		{etcdLost, critical, 5 * s, 5 * s, codes{isolated, diskFull, etcdAlarm, diskStalled},
			"Bring etcd's members back until most of them answer. Probers keep their results, votes are counted; decisions are taken as soon as etcd is back."},
		{etcdSlow, warning, 30 * s, 60 * s, codes{etcdLost, diskStalled}, "Give etcd a faster disk of its own, and look at the delay between datacenters; its members need both."},
		{noLeader, critical, 10 * s, 5 * s, codes{isolated, etcdLost, etcdAlarm}, "Look at the servers' logs for `leads`. It lasts for --lease-ttl after a leader's death; longer means that no server can write to etcd."},
		{leaderStuck, critical, 5 * s, 10 * s, codes{diskFull, etcdLost, etcdAlarm, diskStalled, etcdSlow}, "Run `probemesh stepdown`, so that another server leads; then look at the disk and the etcd member of this one."},
		{leaderDisputed, warning, 10 * s, 10 * s, codes{isolated, etcdLost, serverSilent},
			"Harmless for alerts, since etcd lets one of them act only. Look at the network between these servers and etcd; restart the one that is wrong."},
		{leaderBlind, critical, 5 * s, 10 * s, codes{isolated, peersCut, serverSilent}, "Run `probemesh stepdown`; then look at the network of the server that led."},
		{noProber, critical, 10 * s, 5 * s, codes{isolated}, "Start probers with `probemesh prober --server ADDRESS`. Can they reach --grpc-advertise of the servers?"},
		{noDatacenterQuorum, critical, 10 * s, 10 * s, codes{isolated, noProber}, "Bring probers of the silent datacenters back, or delete those that are gone for good: `probemesh delete prober NAME`."},
		{datacenterSilent, warning, 10 * s, 10 * s, codes{isolated, noProber, noDatacenterQuorum},
			"Look at the network and the power of the datacenter. Probers there go on and keep their results. Checks need the other datacenters for their quorum."},
		{proberSilent, warning, 15 * s, 5 * s, codes{isolated, noProber},
			"Start it, or look at its log and network. If it is gone for good: `probemesh delete prober NAME`."},
		{proberNetwork, warning, 10 * s, 15 * s, codes{isolated, noProber, serverSilent},
			"Mend the prober's network over that family, or its --canary if nothing listens there. Its failures over the family do not count until a canary answers."},
		{setAside, warning, 0, 5 * s, nil,
			"Run `probemesh get incidents`: the incident of the mesh says what they say and others do not, `probemesh explain check NAME` for one check. Mend their network, resolver, clock or build; " +
				"they count again by themselves as soon as they agree with the others again."},
		// Silent probers and those that are set aside are its cause only if they run such checks, see blindCause.
		{checksBlind, critical, 5 * s, 15 * s, codes{isolated, noProber, noDatacenterQuorum, proberNetwork, assignmentsRefused, assignmentsBehind},
			"Run `probemesh explain check NAME`: it says which votes are missing and why."},
		{outboxStuck, critical, 0, 5 * s, codes{isolated, etcdLost, etcdAlarm, noLeader, leaderStuck, etcdSlow},
			"Run `probemesh get receivers -o wide`. If the receivers work, run `probemesh stepdown`, so that another server sends."},
		{receiverFailing, warning, 10 * s, 10 * s, nil,
			"Mend the receiver or its address, then try it with `probemesh test receiver NAME`. What is owed is sent again by itself until give_up_after."},
		{deadManFailing, warning, 0, 5 * s, nil, "Look at --dead-man-url and at the way to it from the leader. Whoever listens there believes by now that alerts may not come."},
		{peersCut, warning, 5 * s, 10 * s, codes{isolated}, "Mend the network between these servers, gRPC port, both ways. Votes still come by the servers that hear both."},
		{stateBehind, warning, 15 * s, 10 * s, codes{isolated, etcdLost}, "Look at its log and its etcd member; restart it if it does not catch up."},
		{assignmentsBehind, warning, m, 10 * s, nil, "Look at the prober's log; restart it if it does not catch up within a minute."},
		{checksUnsatisfiable, warning, 15 * s, 5 * s, codes{isolated, noProber}, "Start probers in more datacenters, or lower the check's quorum; `probemesh explain check NAME` has the arithmetic."},
		{checksForbidden, warning, 15 * s, 15 * s, nil,
			"Correct the check's target, or start its probers with other --allow-networks, --deny-networks or --unix-sockets; `datacenters` of the check keeps it to probers that may."},
		{assignmentsRefused, warning, 15 * s, 10 * s, nil, "Grant what it lacks, such as raw sockets or IPv6, or keep the check away from it with `datacenters`."},
		{clockSkew, warning, 15 * s, 30 * s, nil, "Set the clock there (NTP). Probers' results are corrected meanwhile."},
		{turnedAway, warning, 0, 5 * s, nil,
			"Two processes of one name come of a machine or a data directory that was copied: give one of them another --name and an empty --data, or stop it. " +
				"If it speaks another protocol, upgrade whichever is older. Whoever is turned away goes on probing, and nothing it says counts."},
		{mistimed, warning, 5 * s, 15 * s, nil,
			"Put another build of the prober there, or restart it; if that does not help, look at how its machine keeps time. What it says does not count until then."},
		{historyUnavailable, warning, 10 * s, 10 * s, codes{diskFull, diskStalled}, "Make room on its disk and look at its log. Verdicts and alerts go on."},
		{historyBehind, warning, 30 * s, 10 * s, codes{isolated, historyUnavailable, diskStalled}, "Look at the disk and the log of the server that lacks them. What is lacking waits on the other servers' disks."},
		{diskLow, warning, 15 * s, 60 * s, nil, "Make room, or set --history-max-bytes. When it is full, etcd stops."},
		{resultsDropped, info, 0, 60 * s, nil, "The history has a gap there. Raise --spool-bytes of the prober, or bring servers back sooner. Restarting the prober clears this."},
		{noMeshReceiver, info, 15 * s, 0, nil, "Set mesh_incidents: true on a receiver, so that somebody is told when the mesh itself is blind."},
		{buildsDiffer, info, 10 * m, 5 * s, nil, "Finish the upgrade: every server should run the same build."},
	}
}

// ruleOf finds the rule of a code; there is one for each.
func ruleOf(code meshv1.Condition_Code) (r rule, rank int) {
	for i, r := range rules() {
		if r.code == code {
			return r, i
		}
	}
	panic("health: no rule for " + code.String())
}
