// Package controller is where the mind meets the world: it feeds one [scheduler.State] with what the store's watch, the probers' sessions and the election bring, and
// carries out the actions that come back.
//
// Data flows one way. Events come in through [Controller.Serve] (the store), [Controller.Attach], [Controller.Cast] and [Controller.Detach] (sessions) and
// [Controller.Lead] (election); each is applied under one mutex, in the order in which they arrive. Actions go out: effects (incidents, tables) to a bounded
// queue worked off by a few goroutines, runs to the session that holds the prober, changes of status to the subscriptions. Whatever an effect achieves comes back by the store's
// watch; what it did not achieve comes back as an event, and is wished for again.
//
// Every server runs a controller; only the one inside [Controller.Lead] has a fence, and without a fence no effect is carried out.
//
// Nothing here waits for the history, for a receiver or for a reader of the API.
package controller
