// Package store owns what the mesh keeps in etcd: it is the only package that knows keys and how values are encoded. Others ask it for checks,
// receivers, enrolments, placement tables, incidents, the outbox and the servers, and follow their changes.
//
// # Keys
//
// All keys are below [Prefix]; every value is the binary encoding of one proto message.
//
//	check/<id>                          probemesh.v1.Check
//	receiver/<id>                       probemesh.v1.Receiver
//	prober/<id>                         probemesh.state.v1.Enrolment
//	placement/<datacenter>              probemesh.state.v1.PlacementTable
//	incident/open/<check id>            probemesh.state.v1.StoredIncident, the one open incident of a check
//	incident/open/_mesh-<reason>        the same of the mesh itself; -<domain> follows for probers that are set aside
//	incident/open/_group-<shared>       the same of a group of checks that share something; nothing follows when it is not known what
//	incident/id/<incident id>           the part of the key after incident/open/, so that an open incident is found by its name
//	incident/closed/<incident id>       probemesh.state.v1.StoredIncident
//	outbox/<incident>.<transition>.<receiver>  probemesh.state.v1.OutboxEntry
//	server/<id>                         probemesh.state.v1.ServerRecord, with the server's lease
//	request/<request id>                probemesh.state.v1.RequestRecord, with a lease of an hour
//	leader/holder                       probemesh.state.v1.LeaderRecord, with the leader's lease (package election)
//	term                                the number of the newest term, decimal (package election)
//
// # Promises
//
//   - Reads are linearizable: they see every write that was answered before they began.
//   - A resource's etag and revision are the etcd revision of its last change; they are filled in when it is read and never stored.
//   - Every write on behalf of a leader takes a [Fence] and changes nothing once that reign is over ([ErrFenced]).
//   - A write that was refused changed nothing. A write whose answer was lost is looked up again; where even that fails, the error
//     matches [ErrOutcomeUnknown], and repeating the same call is safe: a leader's write succeeds when the first one did, and a write of a
//     resource then reports that it exists, or has another etag.
//   - What etcd would refuse (1.5 MiB a request, 128 operations a transaction) is refused here first, with a reason.
//   - [Store.Follow] hands over a snapshot and then each change, without a gap, whatever happens to the members of etcd.
//
// A Store has no goroutines of its own; its methods may be called concurrently. It does not close the client.
package store
