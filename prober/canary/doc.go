// Package canary knows whether the prober's own network works, so that a prober whose network is broken does not say that everybody else is down.
//
// # Canaries
//
// A canary is an address to which a TCP connection is opened and closed again, every 5 s: servers of the mesh, the prober's own first and then one of each other datacenter (three at
// most), and what the operator names with `prober --canary`. The answer that counts is any at all: a refused connection shows that packets come and go. A name is
// resolved once a minute, and its old addresses stay while that fails. An address of this machine is no canary, since it answers whatever the network does; one that the
// operator names is.
//
// Canaries are kept by address family. A family is failing when none of its canaries answers in a round of three attempts each, 400 ms apart, within 1.5 s: at a loss of 15 % each way one
// canary alone is silent in 2 of 100 rounds, three of them in 1 of 100,000. Canaries that have never answered since the start say nothing (a server may have an
// IPv6 address on which it does not listen), unless the operator named them.
//
// # Judging a failure
//
// [Canary.Excuse] is asked about each failing probe whose failure may be that of the network. It takes the family of the address that was probed, or all of them when the
// failure came before there was an address. If a canary has answered since the probe began (or 250 ms before), the failure stands, at once. If not, the canaries are
// asked there and then: the first answer lets the failure stand, and when none comes within 1.5 s, the failure is the prober's own. So the price for a sound prober
// is one round trip, for at most four rounds a second however many probes fail.
//
// A canary at the address that was probed has no say in it: the death of a host must not excuse itself. Where only one other canary remains, its silence may be its own
// death; then the answer of anything else that was probed over the family since, told by [Canary.Heard], counts as its answer.
package canary
