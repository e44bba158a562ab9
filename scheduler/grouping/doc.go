// Package grouping explains why many checks turned at once: by what they share.
//
// A cause may be on the side of the probers (a datacenter, a provider, a resolver, a build: all that fails is seen to fail by probers of one failure domain alone) or of the
// targets (a host, a name that the hosts are aliases of, an address, a network, who issued the certificates, a label that the checks' owners have given them). [Explain] takes what is known of a burst of checks that are about to be told of
// and gives the few causes that explain most of them, and the checks that none explains. Everything is a pure function of its arguments; the order of what is given does
// not matter.
//
// # When a value explains
//
// A value on the side of the targets is a candidate when
//
//   - at least as many checks have it in all as the caller takes for a crowd (Burst.Crowd),
//   - at least [Min] (5) of the checks that turned have it, and
//   - of the checks that have it and of which anything was seen since the burst began, at least [Share] (80 %) turned. Checks that were not probed meanwhile say nothing, for
//     or against: with an interval of a minute most have not been within two seconds.
//
// Where a mesh is probed seldom, what turned is all that was seen. Callers that had some of the others probed because of the burst say of which values most answer ([Burst.Cleared]): these explain
// nothing.
//
// An issuer must have more for it, since most checks of a mesh may share one: [IssuerShare] (95 %), and fewer than Min that have it and answer, however many turned. The caller gives it only to checks
// that fail by their certificates or the handshake.
//
// Of the candidates, the one that most of the checks have is taken; of those that nearly as many have ([Near], 95 %), the narrowest: that which the fewest checks have in all,
// then by the order of [dimensions]: a host before what it is an alias of, before an address, its network, an issuer, and a label. Its checks are explained; the rest is looked at again. So two hosts that die at once are two
// causes, and a rack of both is one if a label names it.
//
// A domain of probers is a candidate when
//
//   - at least Min checks, and 80 % of all that turned, are seen to fail by its probers alone;
//   - these are of at least [Min] subjects (hosts): a path to one host that is broken is not a sick domain;
//   - at least Min of them are seen to answer from outside, and none of them to fail;
//   - of all that its probers saw since the burst began, of whichever checks, at least 80 % failed.
//
// So a mesh that has nobody outside is never told that all its own probers are wrong: silence would be a guess. Of the candidates the one with the fewest probers is taken.
// The probers' side is looked at first: while it explains, nothing is held against the targets.
package grouping
