package history

import (
	"math"
	"net/netip"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// slot is one series of a pair of check and prober. Slots are fixed, so that their places in the store can be kept in an array.
type slot uint8

const (
	slotSuccess slot = iota
	slotError
	slotDuration
	slotLookup
	slotProtocol
	slotHTTPStatus
	slotHTTPVersion
	slotHTTPLength
	slotHTTPBody
	slotHTTPRedirects
	slotHTTPSSL
	slotHTTPResolve
	slotHTTPConnect
	slotHTTPTLS
	slotHTTPProcessing
	slotHTTPTransfer
	slotCertExpiry
	slotChainExpiry
	slotTLSVersion // label value varies
	slotTLSCipher  // label value varies
	slotDNSResolve
	slotDNSConnect
	slotDNSRequest
	slotDNSAnswers
	slotDNSAuthorities
	slotDNSAdditionals
	slotDNSSucceeded
	slotDNSSerial
	slotICMPResolve
	slotICMPSetup
	slotICMPRTT
	slotICMPHopLimit
	slotGRPCStatus
	slotGRPCSSL
	slotGRPCUnknown
	slotGRPCServing
	slotGRPCNotServing
	slotGRPCServiceUnknown
	slotGRPCResolve
	slotGRPCConnect
	slotGRPCTLS
	slotGRPCCheck
	slotDegraded
	slotAddresses
	slotAddressesOK
	slotICMPLoss
	slotICMPJitter
	slotICMPMin
	slotICMPAvg
	slotICMPMax
	slotUDPLoss
	slotUDPMin
	slotUDPAvg
	slotUDPMax
	slotCount
)

// shape is how a slot appears outside: its metric and, if it has one, the label that tells it from others of the same metric.
type shape struct{ metric, label, value string }

const (
	metricSuccess  = "probe_success"
	metricDuration = "probe_duration_seconds"
	metricError    = "probemesh_probe_error"
	metricDegraded = "probemesh_probe_degraded"
	metricVerdict  = "probemesh_check_verdict"
	metricSince    = "probemesh_check_verdict_since_timestamp_seconds"
	phase          = "phase"
	servingStatus  = "serving_status"
	statistic      = "statistic"
)

// shapes is a constant table: nothing writes to it.
var shapes = [slotCount]shape{
	slotDegraded:           {metric: metricDegraded},
	slotAddresses:          {metric: "probemesh_probe_addresses"},
	slotAddressesOK:        {metric: "probemesh_probe_addresses_ok"},
	slotICMPLoss:           {metric: "probemesh_probe_icmp_loss_ratio"},
	slotICMPJitter:         {metric: "probemesh_probe_icmp_jitter_seconds"},
	slotICMPMin:            {"probemesh_probe_icmp_rtt_seconds", statistic, "min"},
	slotICMPAvg:            {"probemesh_probe_icmp_rtt_seconds", statistic, "avg"},
	slotICMPMax:            {"probemesh_probe_icmp_rtt_seconds", statistic, "max"},
	slotUDPLoss:            {metric: "probemesh_probe_udp_loss_ratio"},
	slotUDPMin:             {"probemesh_probe_udp_rtt_seconds", statistic, "min"},
	slotUDPAvg:             {"probemesh_probe_udp_rtt_seconds", statistic, "avg"},
	slotUDPMax:             {"probemesh_probe_udp_rtt_seconds", statistic, "max"},
	slotSuccess:            {metric: metricSuccess},
	slotError:              {metric: metricError},
	slotDuration:           {metric: metricDuration},
	slotLookup:             {metric: "probe_dns_lookup_time_seconds"},
	slotProtocol:           {metric: "probe_ip_protocol"},
	slotHTTPStatus:         {metric: "probe_http_status_code"},
	slotHTTPVersion:        {metric: "probe_http_version"},
	slotHTTPLength:         {metric: "probe_http_content_length"},
	slotHTTPBody:           {metric: "probe_http_uncompressed_body_length"},
	slotHTTPRedirects:      {metric: "probe_http_redirects"},
	slotHTTPSSL:            {metric: "probe_http_ssl"},
	slotHTTPResolve:        {"probe_http_duration_seconds", phase, "resolve"},
	slotHTTPConnect:        {"probe_http_duration_seconds", phase, "connect"},
	slotHTTPTLS:            {"probe_http_duration_seconds", phase, "tls"},
	slotHTTPProcessing:     {"probe_http_duration_seconds", phase, "processing"},
	slotHTTPTransfer:       {"probe_http_duration_seconds", phase, "transfer"},
	slotCertExpiry:         {metric: "probe_ssl_earliest_cert_expiry"},
	slotChainExpiry:        {metric: "probe_ssl_last_chain_expiry_timestamp_seconds"},
	slotTLSVersion:         {metric: "probe_tls_version_info", label: "version"},
	slotTLSCipher:          {metric: "probe_tls_cipher_info", label: "cipher"},
	slotDNSResolve:         {"probe_dns_duration_seconds", phase, "resolve"},
	slotDNSConnect:         {"probe_dns_duration_seconds", phase, "connect"},
	slotDNSRequest:         {"probe_dns_duration_seconds", phase, "request"},
	slotDNSAnswers:         {metric: "probe_dns_answer_rrs"},
	slotDNSAuthorities:     {metric: "probe_dns_authority_rrs"},
	slotDNSAdditionals:     {metric: "probe_dns_additional_rrs"},
	slotDNSSucceeded:       {metric: "probe_dns_query_succeeded"},
	slotDNSSerial:          {metric: "probe_dns_serial"},
	slotICMPResolve:        {"probe_icmp_duration_seconds", phase, "resolve"},
	slotICMPSetup:          {"probe_icmp_duration_seconds", phase, "setup"},
	slotICMPRTT:            {"probe_icmp_duration_seconds", phase, "rtt"},
	slotICMPHopLimit:       {metric: "probe_icmp_reply_hop_limit"},
	slotGRPCStatus:         {metric: "probe_grpc_status_code"},
	slotGRPCSSL:            {metric: "probe_grpc_ssl"},
	slotGRPCUnknown:        {"probe_grpc_healthcheck_response", servingStatus, "UNKNOWN"},
	slotGRPCServing:        {"probe_grpc_healthcheck_response", servingStatus, "SERVING"},
	slotGRPCNotServing:     {"probe_grpc_healthcheck_response", servingStatus, "NOT_SERVING"},
	slotGRPCServiceUnknown: {"probe_grpc_healthcheck_response", servingStatus, "SERVICE_UNKNOWN"},
	slotGRPCResolve:        {"probe_grpc_duration_seconds", phase, "resolve"},
	slotGRPCConnect:        {"probe_grpc_duration_seconds", phase, "connect"},
	slotGRPCTLS:            {"probe_grpc_duration_seconds", phase, "tls"},
	slotGRPCCheck:          {"probe_grpc_duration_seconds", phase, "check"},
}

// sample is one value of a result.
type sample struct {
	slot  slot
	value float64
	text  string // the label's value, where it varies
}

// samplesOf appends to out what a result with outcome OK, FAIL or ERROR says, and returns it. It is pure. As in blackbox_exporter, the figures of a kind are
// there, as 0, even when the target never answered; those of TLS are there only after a handshake.
func samplesOf(r *meshv1.Result, uri string, out []sample) []sample {
	if r.Outcome == meshv1.Result_ERROR {
		return append(out, sample{slot: slotError, value: 1})
	}
	out = append(out,
		sample{slot: slotSuccess, value: truth(r.Outcome == meshv1.Result_OK)},
		sample{slot: slotDuration, value: seconds(r.Duration)},
		sample{slot: slotLookup, value: seconds(r.Timings.GetResolve())},
		sample{slot: slotProtocol, value: protocolOf(r.RemoteAddress)})
	if r.Degraded != "" {
		out = append(out, sample{slot: slotDegraded, value: 1})
	}
	if len(r.Addresses) > 0 {
		out = addressSamples(r, out)
	}
	scheme, _, _ := strings.Cut(uri, ":")
	switch scheme {
	case "http", "https":
		out = httpSamples(r, out)
	case "dns":
		out = dnsSamples(r, out)
	case "icmp":
		out = icmpSamples(r, out)
	case "udp":
		out = udpSamples(r, out)
	case "grpc", "grpcs":
		out = grpcSamples(r, out)
	}
	return tlsSamples(r.Tls, out)
}

func addressSamples(r *meshv1.Result, out []sample) []sample {
	good := 0
	for _, a := range r.Addresses {
		if a.GetOutcome() == meshv1.Result_OK {
			good++
		}
	}
	return append(out, sample{slot: slotAddresses, value: float64(len(r.Addresses))}, sample{slot: slotAddressesOK, value: float64(good)})
}

func httpSamples(r *meshv1.Result, out []sample) []sample {
	h, t := r.Http, r.Timings
	version, _ := strconv.ParseFloat(h.GetVersion(), 64) // empty without an answer: 0
	return append(out,
		sample{slot: slotHTTPStatus, value: float64(h.GetStatus())},
		sample{slot: slotHTTPVersion, value: version},
		sample{slot: slotHTTPLength, value: float64(h.GetContentLength())},
		sample{slot: slotHTTPBody, value: float64(h.GetBodyBytes())},
		sample{slot: slotHTTPRedirects, value: float64(h.GetRedirects())},
		sample{slot: slotHTTPSSL, value: truth(r.Tls != nil)},
		sample{slot: slotHTTPResolve, value: seconds(t.GetResolve())},
		sample{slot: slotHTTPConnect, value: seconds(t.GetConnect())},
		sample{slot: slotHTTPTLS, value: seconds(t.GetHandshake())},
		sample{slot: slotHTTPProcessing, value: seconds(t.GetProcessing())},
		sample{slot: slotHTTPTransfer, value: seconds(t.GetTransfer())})
}

func tlsSamples(t *meshv1.TlsResult, out []sample) []sample {
	if t == nil {
		return out
	}
	if t.EarliestExpiry != nil {
		out = append(out, sample{slot: slotCertExpiry, value: float64(t.EarliestExpiry.Seconds)})
	}
	if t.ChainExpiry != nil {
		out = append(out, sample{slot: slotChainExpiry, value: float64(t.ChainExpiry.Seconds)})
	}
	if t.Version != "" {
		out = append(out, sample{slot: slotTLSVersion, value: 1, text: t.Version})
	}
	if t.Cipher != "" {
		out = append(out, sample{slot: slotTLSCipher, value: 1, text: t.Cipher})
	}
	return out
}

func dnsSamples(r *meshv1.Result, out []sample) []sample {
	d, t := r.Dns, r.Timings
	out = append(out,
		sample{slot: slotDNSSucceeded, value: truth(d != nil)},
		sample{slot: slotDNSAnswers, value: float64(d.GetAnswers())},
		sample{slot: slotDNSAuthorities, value: float64(d.GetAuthorities())},
		sample{slot: slotDNSAdditionals, value: float64(d.GetAdditionals())},
		sample{slot: slotDNSResolve, value: seconds(t.GetResolve())},
		sample{slot: slotDNSConnect, value: seconds(t.GetConnect())},
		sample{slot: slotDNSRequest, value: seconds(t.GetProcessing()) + seconds(t.GetTransfer())})
	if s := d.GetSerial(); s != 0 {
		out = append(out, sample{slot: slotDNSSerial, value: float64(s)})
	}
	return out
}

func icmpSamples(r *meshv1.Result, out []sample) []sample {
	out = append(out,
		sample{slot: slotICMPResolve, value: seconds(r.Timings.GetResolve())},
		sample{slot: slotICMPSetup, value: seconds(r.Timings.GetConnect())},
		sample{slot: slotICMPRTT, value: seconds(r.Icmp.GetRttAvg())})
	if l := r.Icmp.GetHopLimit(); l > 0 {
		out = append(out, sample{slot: slotICMPHopLimit, value: float64(l)})
	}
	if r.Icmp.GetJitter() != nil {
		out = append(out, sample{slot: slotICMPJitter, value: seconds(r.Icmp.Jitter)})
	}
	i := r.Icmp
	return trips(out, slotICMPLoss, i.GetSent(), i.GetReceived(), slotICMPMin, i.GetRttMin(), i.GetRttAvg(), i.GetRttMax())
}

func udpSamples(r *meshv1.Result, out []sample) []sample {
	u := r.Udp
	return trips(out, slotUDPLoss, u.GetSent(), u.GetReceived(), slotUDPMin, u.GetRttMin(), u.GetRttAvg(), u.GetRttMax())
}

// trips are the share of what was sent that was lost, if anything was sent, and the round trips, if anything came back. first is the slot of the shortest round
// trip; the mean and the longest follow it.
func trips(out []sample, loss slot, sent, received int32, first slot, rtt ...*durationpb.Duration) []sample {
	if sent > 0 {
		out = append(out, sample{slot: loss, value: 1 - float64(min(received, sent))/float64(sent)})
	}
	for i, d := range rtt {
		if received > 0 && d != nil {
			out = append(out, sample{slot: first + slot(i), value: seconds(d)})
		}
	}
	return out
}

func grpcSamples(r *meshv1.Result, out []sample) []sample {
	serving, t := r.Grpc.GetServing(), r.Timings
	if r.Grpc != nil {
		out = append(out, sample{slot: slotGRPCStatus, value: grpcCode(r.Grpc.Status)})
	}
	return append(out,
		sample{slot: slotGRPCSSL, value: truth(r.Tls != nil)},
		sample{slot: slotGRPCUnknown, value: truth(serving == "UNKNOWN")},
		sample{slot: slotGRPCServing, value: truth(serving == "SERVING")},
		sample{slot: slotGRPCNotServing, value: truth(serving == "NOT_SERVING")},
		sample{slot: slotGRPCServiceUnknown, value: truth(serving == "SERVICE_UNKNOWN")},
		sample{slot: slotGRPCResolve, value: seconds(t.GetResolve())},
		sample{slot: slotGRPCConnect, value: seconds(t.GetConnect())},
		sample{slot: slotGRPCTLS, value: seconds(t.GetHandshake())},
		sample{slot: slotGRPCCheck, value: seconds(t.GetProcessing()) + seconds(t.GetTransfer())})
}

// grpcCode is the number of a status code's name; a name that nobody knows is UNKNOWN.
func grpcCode(name string) float64 {
	if n, ok := code.Code_value[name]; ok {
		return float64(n)
	}
	return float64(code.Code_UNKNOWN)
}

// protocolOf is 4 or 6, the family of the address probed, or 0 when none was.
func protocolOf(address string) float64 {
	ap, err := netip.ParseAddrPort(address)
	a := ap.Addr()
	if err != nil {
		if a, err = netip.ParseAddr(address); err != nil {
			return 0
		}
	}
	if a.Unmap().Is4() {
		return 4
	}
	return 6
}

func seconds(d *durationpb.Duration) float64 {
	if d == nil {
		return 0
	}
	s := float64(d.Seconds) + float64(d.Nanos)/1e9
	if math.IsNaN(s) {
		return 0
	}
	return s
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
