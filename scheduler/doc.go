// Package scheduler is the mind of the mesh: it knows every check, prober, placement table, vote and open incident, and decides what is to be done.
//
// [State] takes events ([State.Apply]) and gives back the actions it wishes for. It does no I/O, starts no goroutine and reads no clock: now is an argument,
// and the same events at the same times give the same actions. Every server feeds one, so every server knows the same; the actions that have an effect
// outside ([Open], [Resolve], [Escalate], [Confirm], [MoveRows]) are carried out by the leader only, each fenced by its term, and dropped by the others.
// A new leader therefore rebuilds nothing: at the first Apply after [Leadership] it wishes for all that is due.
//
// What an action achieved comes back as an event: the store's watch brings the incident that was opened; [EffectFailed] says that one was not, and it is
// wished for again later. Until either, the wish is not repeated.
//
// The caller's duties, in order:
//  1. Apply the snapshot of the store as one call, then changes as they come.
//  2. Apply presence and votes as the sessions bring them, with the time at which they arrive.
//  3. Call Apply with no event at the time that [State.Due] names, at the latest a second later.
//  4. Carry out the actions in order, if the server leads; report what failed.
//
// The decisions themselves live below: verdict counts votes, placement chooses probers, incident opens and closes, alert says who is told what.
package scheduler
