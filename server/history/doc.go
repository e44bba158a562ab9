// Package history keeps the results of probes as time series and answers questions about them.
//
// Every server has a history of its own, an embedded Prometheus TSDB, and appends every result that it sees, so that the past survives the loss of any
// server. Verdicts and alerts never wait for it and never read from it; a server that
// starts anew reads there since when each verdict holds that it comes to again.
//
// # What is written
//
// Metric names and meanings are those of blackbox_exporter, so that its dashboards and rules work: probe_success, probe_duration_seconds,
// probe_dns_lookup_time_seconds, probe_ip_protocol, probe_http_*, probe_ssl_*, probe_tls_*_info, probe_dns_*, probe_icmp_* and probe_grpc_*. The labels are
// `check` and `prober` (ids without their collection), `datacenter`, `instance` (the URI) and `job="probemesh"`. The timestamp is the start of the probe.
//
//   - A result with outcome ERROR is the prober's own fault and says nothing of the target: it writes probemesh_probe_error 1 and nothing else. The next
//     result of that prober writes a 0.
//   - A result that is OK and degraded writes probemesh_probe_degraded 1, and the next one of that prober that is not a 0. With several addresses there are
//     probemesh_probe_addresses and probemesh_probe_addresses_ok.
//   - Kinds icmp and udp write probemesh_probe_icmp_loss_ratio and probemesh_probe_udp_loss_ratio (0 to 1, of what was sent), with answers also
//     probemesh_probe_icmp_rtt_seconds and probemesh_probe_udp_rtt_seconds with the label `statistic` (min, avg, max), and probemesh_probe_icmp_jitter_seconds.
//   - A result with outcome SLOW is not written: the final result of the same probe follows.
//   - probemesh_check_verdict{check} is the mesh's verdict, as the number of the enum CheckStatus.Verdict (1 UP, 2 DEGRADED, 3 DOWN, 4 UNKNOWN, 5 PAUSED),
//     sampled every [Config.VerdictPeriod]; probemesh_check_verdict_since_timestamp_seconds{check} is since when it holds, in Unix time.
//
// # When a result is safe
//
// [History.Append] returns after the write-ahead log has it: it survives the death of the process, at any moment. A loss of power may cost what the operating
// system had not yet written; the histories of the other servers have it. Results may come late and in any order within [Config.OutOfOrder] of the newest one, and
// a repeat of a result changes nothing. What is too old, too far in the future or not a result is counted, logged at most once a minute, and left out.
//
// # When the store fails
//
// A torn log is repaired when it is opened. A damaged block, or a store that does not open at all, is set aside beside the directory under a name that ends
// in `.set-aside-<time>`, said so in the log, and the history goes on without it. When a write fails, for example because the disk is full, Append returns an
// error with reason HISTORY_UNAVAILABLE and keeps doing so until [History.Run] has opened the store again; the caller keeps its results and retries.
//
// # Questions
//
// [History.Register] serves probemesh.v1.HistoryService; [History.Handler] serves the HTTP API of Prometheus for Grafana and promtool. At most
// [Config.MaxQueries] run at once; the others wait a moment and are then refused.
package history
