// Package controller is where the mind meets the world: it feeds one [scheduler.State] with what the store's watch, the probers' sessions, the other servers and the
// election bring, and carries out the actions that come back.
//
// Data flows one way. Events come in through [Controller.Serve] (the store), [Controller.Attach], [Controller.Cast] and [Controller.Detach] (sessions of this server),
// [Controller.PeerPresences], [Controller.PeerVotes] and [Controller.PeerSilent] (those of the others) and [Controller.Lead] (election); each is applied under one mutex,
// in the order in which they arrive. Actions go out: effects (incidents, tables) to a bounded queue worked off by a few goroutines, runs to the server that holds the
// prober, changes of status to the subscriptions. Whatever an effect achieves comes back by the store's watch; what it did not achieve comes back as an event, and is
// wished for again.
//
// # Every server thinks
//
// Every server runs a controller, and all of them know the same: a prober may be attached to any server, which passes its votes on ([Peers]) before it counts them. So any
// server answers any question from its own memory, and a server that begins to lead asks nobody what is true. Only the one inside [Controller.Lead] has a fence, and
// without a fence no effect is carried out and nobody is asked to probe.
//
// # Presence
//
// For each prober the controller keeps which servers say that they have a session of it. It is online while one does.
//
//   - While it moves from one server to another there are two for up to three seconds, until the old server misses it. The late end of the old session changes
//     nothing; runs go to both, and a prober does no run twice.
//   - A goodbye counts when the last session of that process has ended.
//   - A server that falls silent takes its sessions with it. Its probers are then unheard, not gone: a server that cannot hear the others gives none of their probers'
//     rows away when it begins to lead, before a minute has shown that they do not come.
//   - A second process of a name is refused by every server that hears of the first. If two servers that do not hear each other have taken one each, the one that came
//     later is ended by its server when they do.
//
// # What waits, and for how long
//
// Nothing here waits for the history, for a receiver, for another server or for a reader of the API. An ad-hoc run waits for the check's timeout and 5 s more at most,
// and no longer than the processes that were asked have a session at a server that is heard.
package controller
