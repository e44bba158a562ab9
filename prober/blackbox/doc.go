// Package blackbox answers /probe as blackbox_exporter does, so that a Prometheus that scrapes one can scrape a prober instead, with the same
// scrape configuration, the same configuration file, the same alert rules and the same dashboards.
//
//	GET /probe?module=http_2xx&target=https://example.com  ->  probe_success 1, probe_duration_seconds 0.08, ...
//
// A request names a module of the configuration file and a target. The [Exporter] probes the target once, while the request waits, and answers with
// what it measured. Nothing is kept: results asked for here are votes of no check and go to no server.
//
//	[Config]   the file, in the terms of blackbox_exporter: its options, their defaults, and a sentence for everything else
//	[Exporter] the handlers: /probe, /-/reload, /config; how many probes may run at once
//	series     what one probe measured, in the names of blackbox_exporter
//	http, tcp, dns, icmp, grpc, unix: one file each
//
// Two of the kinds mean the same here as in a check, icmp and grpc, and are compiled by [github.com/probemesh/probemesh/prober/probe/kinds]. The others are probes of their own on the
// same base ([probe.Plan], [probe.Attempt]: phases, classes of failure, sentences, no panic), since the exporter's users rely on ways of its that a check must not have: it connects to one address
// of one family, keeps cookies over redirects, sends headers to whom a redirect leads, reads a dialogue line by line, and takes a truncated DNS answer for an answer.
//
// Whoever can reach /probe can make this machine connect to any address that it can reach. It is therefore served only when asked for, and belongs on an address that only
// Prometheus reaches. The number of probes at once and the memory for answers are bounded; beyond either the answer is 503 and not a verdict on the target.
package blackbox
