// Package breakglass is what a server does when etcd has lost its quorum: nobody can write an incident down then, and people must hear of outages all the same.
//
// Each server reads etcd every second ([store.Pulse]). One that gets no answer looks at what the others say in their beats: while one of them reads etcd, or says
// nothing of it, it is this server that is cut off, others alert, and it keeps quiet. When all that are heard have lost it, the mesh has: the mind is told
// ([scheduler.Store]), shows what cannot be decided as undecided, and after a grace wishes for [scheduler.BreakGlass] messages.
//
// [Glass] sends them, to the receivers of a local file ([Load]): a file, because receivers are in etcd. Every server has the wish, and the keys are the same on
// each that saw the same; so that normally one of them sends, those that hear each other wait by the rank of their names, three seconds each, and do not send what
// a beat says was delivered. A server that hears nobody sends at once. More than 20 outages within ten seconds are one message, whose key is made of theirs.
//
// A server that lost etcd before the others did knows less than they: they may have opened and told incidents of which etcd has not told it. So may one whose
// watch lost events. Those that know more tell it of what is open ([scheduler.IncidentKnown]) and of what is not any more ([scheduler.IncidentEnded]), well
// within the grace, and it tells nobody of that.
//
// What was delivered goes into the beats ([Glass.Fill]) and into a file, so that a server which is started anew does not forget it. When etcd is back, nothing more
// is sent; every server tells its mind what the others delivered, and holds back opening until it has heard them, for at most three seconds. The leader then writes
// the outages down as incidents, and spares who was told ([scheduler.OutageSeen]). Outages whose incident is closed in etcd already, written by a leader that this
// server did not hear, are found by their keys and dropped.
//
// What cannot be promised: servers that do not hear each other may each send, with one key where they saw the same. A message that is under way when etcd returns
// and is answered after more than three seconds may be followed by an ordinary one.
//
// [New] starts nothing. [Glass.Run] lives as long as its context. [Glass.Take] and [Glass.Fill] never block and may be called concurrently, also before Run.
package breakglass
