// Package referee plays the rules by which monitoring systems call a target down against each other, on the same ground truth: how fast each is, how often it is
// wrong, and how many probes it sends.
//
// # The ground truth
//
// A [Truth] says of every moment, place and check whether a probe that begins there would be answered, and after how long. It is a function of its seed: what two rules
// ask at the same moment from the same place gets the same answer, so rules differ in their decisions alone. Targets fail wholly, from some regions only, for
// seconds, or by answering slower than the timeout now and then. What probes with them fails too: single probers, all of a datacenter, a part of what a provider, a
// resolver or a build does, and each probe by itself once in a few thousand times.
//
// # Strata
//
// False alerts are rare, and each has a cause. So the referee does not wait for faults: for each [Class] of fault it plays many rounds that have exactly one, and
// weighs what came out with how often such faults are ([Class.PerDay]). The figure per million check-days is the sum over the classes, and the table by class says what
// each rule is fooled by. Two faults at once, other than single lost probes, are not played.
//
// The rates are assumptions, written down in [Classes], not measurements of any network; what is compared is the rules, and each class can be read by itself.
//
// # What counts
//
// An alert is false when the target answers from everywhere while it is opened, or did so for longer than [Grace] before. An alert during an outage that only some
// regions see, or during a blip of seconds, is neither false nor a detection, and is counted by itself. An outage is missed when nothing was opened before it ended.
// Detection time runs from the moment at which the target fails to the decision.
//
// # The rules
//
// [Rules] has the rules that other systems document, each with the parameters that they ship or recommend, and ours at several settings, which is the product's own mind
// (package scheduler) fed with simulated probes: nothing of it is modelled.
package referee
