// Package members lists and changes the members of the etcd cluster that the servers run: a server's embedded etcd joins as a learner, catches up, and then votes.
//
// [Service] is the API's MemberService over an etcd client; it holds no state of its own. What it refuses, and why, is in proto/probemesh/v1/member_service.proto. etcd's own
// check of reconfigurations (StrictReconfigCheck) stays on behind it: what would cost the quorum is refused there too, also by force.
package members
