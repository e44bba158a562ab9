package telemetry

// Keys of log attributes and span attributes. Values are resource names (`checks/shop`) unless a comment says otherwise.
const (
	// KeyCheck is a check: `checks/shop`.
	KeyCheck = "check"
	// KeyProber is a prober: `probers/fra-1`.
	KeyProber = "prober"
	// KeyServer is a server: `servers/a`.
	KeyServer = "server"
	// KeyIncident is an incident: `incidents/7f3`.
	KeyIncident = "incident"
	// KeyReceiver is a receiver: `receivers/ops`.
	KeyReceiver = "receiver"
	// KeyDatacenter is the bare name of a datacenter.
	KeyDatacenter = "datacenter"
	// KeyTerm is the number of a leader's reign.
	KeyTerm = "term"
	// KeyRevision is a revision of etcd.
	KeyRevision = "revision"
	// KeyVerdict is a verdict, as the enum value's name.
	KeyVerdict = "verdict"
	// KeyReason is why something was decided, as the enum value's name.
	KeyReason = "reason"
	// KeyOutcome is the outcome of a probe, as the enum value's name.
	KeyOutcome = "outcome"
	// KeyRun is the id of a run that was asked for.
	KeyRun = "run_id"
	// KeyTrace is a trace id, lower-case hex.
	KeyTrace = "trace_id"
	// KeyAddress is a network address, host:port.
	KeyAddress = "address"
	// KeyErr is an error.
	KeyErr = "err"
)
