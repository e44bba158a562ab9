package blackbox

// helps is the HELP line of a series.
func helps(name string) string {
	switch name {
	case "probe_success":
		return "1 when the target answered as the module asks for, else 0."
	case "probe_duration_seconds":
		return "From the beginning of the probe to its end."
	case "probe_dns_lookup_time_seconds":
		return "Time to find an address of the target."
	case "probe_ip_protocol":
		return "4 or 6: the version of IP of the address that was chosen; 0 without one."
	case "probe_ip_addr_hash":
		return "FNV-1a of the address that was chosen, which changes when the address does."
	case "probe_http_status_code":
		return "Status of the last answer; 0 without one."
	case "probe_http_version":
		return "Version of HTTP of the last answer; 0 without one."
	case "probe_http_duration_seconds":
		return "Time in each phase, summed over redirects."
	case "probe_http_content_length":
		return "Content-Length of the last answer; -1 when it had none."
	case "probe_http_uncompressed_body_length":
		return "Bytes of the last answer's body, decompressed."
	case "probe_http_redirects":
		return "Redirects that the target asked for."
	case "probe_http_ssl":
		return "1 when the last answer came over TLS, else 0."
	case "probe_http_last_modified_timestamp_seconds":
		return "Last-Modified of the last answer."
	case "probe_failed_due_to_regex":
		return "1 when an answer came and a regular expression decided against it, else 0."
	case "probe_failed_due_to_cel":
		return "1 when an answer came and an expression in CEL decided against it, else 0."
	case "probe_failed_due_to_bytes":
		return "1 when other bytes came than were expected, else 0."
	case "probe_ssl_earliest_cert_expiry":
		return "When the first of the certificates that the target sent expires."
	case "probe_ssl_last_chain_expiry_timestamp_seconds":
		return "When the verified chain expires; far in the past when nothing was verified."
	case "probe_ssl_last_chain_info":
		return "The target's own certificate."
	case "probe_tls_version_info":
		return "The version of TLS that was spoken."
	case "probe_tls_cipher_info":
		return "The cipher suite that was spoken."
	case "probe_expect_info":
		return "What an expectation matched."
	case "probe_dns_duration_seconds":
		return "Time in each phase of the question."
	case "probe_dns_answer_rrs":
		return "Records in the answer section."
	case "probe_dns_authority_rrs":
		return "Records in the authority section."
	case "probe_dns_additional_rrs":
		return "Records in the additional section."
	case "probe_dns_query_succeeded":
		return "1 when an answer came, good or bad, else 0."
	case "probe_dns_serial":
		return "Serial of the SOA record in the answer."
	case "probe_icmp_duration_seconds":
		return "Time in each phase of the echo."
	case "probe_icmp_reply_hop_limit":
		return "TTL or hop limit of the reply."
	case "probe_grpc_duration_seconds":
		return "Time in each phase of the call."
	case "probe_grpc_ssl":
		return "1 when the call went over TLS, else 0."
	case "probe_grpc_status_code":
		return "Number of the call's gRPC status."
	case "probe_grpc_healthcheck_response":
		return "1 for what the health service answered, 0 for what else it might have."
	}
	return "See the manual."
}
