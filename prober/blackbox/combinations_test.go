package blackbox_test

import "strings"

// combinations are the requests that both exporters are sent.
func combinations(w *world) (out []combination) {
	add := func(modules string, target, suffix string) {
		address := w.at[target]
		if address == "" {
			address = target
		}
		for m := range strings.FieldsSeq(modules) {
			out = append(out, combination{module: m, target: target + suffix, url: strings.Replace(suffix, "@", address, 1)})
		}
	}
	pages := `ok created empty partial 400 401 403 404 410 418 429 500 502 503 504 300 301 302 303 304 305 307 308 away loop nowhere badlocation ftp refusedlocation modified unmodified
		json large cookieset chain/1 chain/5 chain/9 chain/10 chain/11 cookie post body basic bearer host header acceptgzip gzip deflate br falsegzip falsedeflate falsebr garbage close short
		badchunk http10 nolength status999 continue reset`
	for p := range strings.FieldsSeq(pages) {
		add(`http_2xx http_post http_head http_codes http_stay http_stay_3xx http_hello http_nothello http_hello_any http_kind http_notkind http_maybekind http_both
			http_gzip http_gzip_only http_deflate http_br http_identity http_small http_medium`, "http", "http://@/"+p)
	}
	for _, x := range []struct{ module, page string }{{"http_body", "body"}, {"http_basic", "basic"}, {"http_bearer", "bearer"}, {"http_authorization", "bearer"},
		{"http_host", "host"}, {"http_headers", "header"}, {"http_basic", "away"}, {"http_headers", "302"}, {"http_proxy", "ok"}, {"http_proxy", "302"}, {"http_proxy", "404"},
		{"http_proxy_names", "ok"}, {"http_proxy407", "ok"}, {"http_proxy_dead", "ok"}, {"http_ssl", "ok"}, {"http_ssl", "tohttps"}, {"http_ssl", "404"}, {"http_nossl", "ok"}, {"http_nossl", "tohttps"},
		{"http_2xx", "tohttps"}, {"http_name", "tohttps"}, {"http_nofile", "ok"}, {"http_v11", "ok"}, {"http_v11", "http10"}, {"http_v2", "ok"}, {"http_ip4", "ok"}, {"http_ip6_only", "ok"},
		{"http_2xx", "slow"}, {"http_2xx", "slowbody"}, {"http_hello", "slowbody"}, {"http_small", "slowbody"}} {
		add(x.module, "http", "http://@/"+x.page)
	}
	servers := "https http2 tls12 tls11 tls13 mutual expired early wrongname selfsigned chain nohandshake http"
	for s := range strings.FieldsSeq(servers) {
		modules := "http_2xx http_v11 http_v2 http_no2 http_ssl http_nossl http_insecure http_name http_othername http_tls13 http_tls10 http_client http_nofile http_proxy http_proxy407"
		if s == "nohandshake" {
			modules = "http_2xx http_insecure"
		}
		add(modules, s, "https://@/ok")
		if s != "nohandshake" {
			add("http_ssl http_insecure http_codes", s, "https://@/404")
			add("tcp_tls tcp_tls_noverify tcp_tls_name tcp_tls_client tcp_connect", s, "@")
		}
	}
	add("http_2xx http_insecure", "https", "@/ok")
	add("http_2xx http_ip4 http_ip6_only http_hello", "http", "@/ok")
	for _, odd := range []string{"http://[::1", "http://", "http://localhost:1/", "http://no-such-host.invalid/", "://", "http://127.0.0.1:99999/", "127.0.0.1:1", "http://127.0.0.1:1/%zz", "ftp://127.0.0.1/"} {
		add("http_2xx http_ip6_only http_codes", odd, odd)
	}
	for _, u := range []string{"http://user:pass@@/basic", "http://user:wrong@@/basic", "HTTP://@/ok", "Http://@/ok", "http://@/ok?a=b&c=d#e", "http://@", "@", "http://@//ok", "http://@/ok%20", "http://@/ok/../ok",
		"http://@/manyheaders", "http://@/hugeheader", "http://@/longstatus", "http://@/doublelength", "http://@/crlf", "http://@/upgrade", "http://@/early", "http://@/trailers", "http://@/deep", "http://@/bigchunks",
		"http://@/308post", "http://@/cookieaway", "http://@/utf16", "http://@/emptybody", "http://@/setcookies"} {
		add("http_2xx http_post http_hello http_nothello http_codes http_basic http_small http_stay", "http", u)
	}
	add("http_2xx http_ip4 http_ip6_only http_hello http_ssl", "http6", "http://@/ok")
	add("http_insecure http_ssl", "http6", "https://@/ok")
	add("tcp_connect tcp_ip4 tcp_ip6_only tcp_ssh", "http6", "@")
	for _, far := range []string{"192.0.2.1", "240.0.0.1", "0.0.0.0", "255.255.255.255", "2001:db8::1"} {
		host := far
		if strings.Contains(far, ":") {
			host = "[" + far + "]"
		}
		add("http_2xx http_ip6_only", far, "http://"+host+":81/")
		add("tcp_connect tcp_tls tcp_ip6_only", far, host+":81")
		add("icmp icmp_ip4 icmp_df icmp_ip6_only", far, far)
		add("dns_one dns_tcp", far, host)
		add("grpc_ip4 grpc_tls", far, host+":81")
	}
	add("grpc_ip4 grpc_serving", "grpcslow", "@")
	add("grpc_ip4 grpc_serving", "h2c404", "@")
	add("grpc_ip4 grpc_serving", "h2c200", "@")
	add("grpc_ip4 grpc_serving", "h2c503", "@")
	_, port, _ := strings.Cut(w.at["http"], ":")
	add("http_2xx http_ip4 http_ip6_only", "localhost", "http://localhost:"+port+"/ok")
	add("tcp_connect tcp_ip4 tcp_ip6_only", "localhost", "localhost:"+port)
	for s := range strings.FieldsSeq("ssh pop halfline lines longline nearline binary silent ends endshalf closes resets irc smtp smtpplain tlsssh refused nohandshake") {
		add("tcp_connect tcp_ip4 tcp_ip6_only tcp_ssh tcp_ssh_answer tcp_pop tcp_lines tcp_empty tcp_irc tcp_smtp tcp_smtp_untrusted tcp_smtp_noverify tcp_tls tcp_tls_ssh tcp_send", s, "@")
	}
	for _, odd := range []string{"127.0.0.1", "127.0.0.1:", ":22", "no-such-host.invalid:22", "127.0.0.1:99999", "127.0.0.1:http", "[::1]:1"} {
		add("tcp_connect tcp_ip6_only", odd, odd)
	}
	for _, h := range []string{"127.0.0.1", "::1", "localhost", "no-such-host.invalid", "127.0.0.1:80", "", "127.1.2.3"} {
		if h != "" {
			add("icmp icmp_ip4 icmp_large icmp_ip6_only icmp_ttl icmp_df icmp_source", h, h)
		}
	}
	for s := range strings.FieldsSeq("grpc nohealthgrpc grpcs grpcsexpired http https http2 refused closes ssh resets") {
		add("grpc grpc_serving grpc_down grpc_unknown grpc_odd grpc_none grpc_ip4 grpc_tls grpc_tls_down grpc_tls_noverify grpc_tls_name", s, "@")
	}
	add("grpc", "grpc", "http://@/")
	add("grpc grpc_tls", "no-such-host.invalid:1", "no-such-host.invalid:1")
	for _, odd := range []string{"[::ffff:127.0.0.1]", "[::1]", "::ffff:127.0.0.1", "[127.0.0.1]"} {
		_, at, _ := strings.Cut(w.at["grpc"], ":")
		add("grpc_ip4 grpc_tls", "grpc at "+odd, odd+":"+at)
		add("http_2xx http_proxy http_proxyempty", "http at "+odd, "http://"+odd+":"+port+"/ok")
	}
	if zoned := linkLocal(); zoned != "" { // the same machine, on an interface of its own
		add("http_2xx http_ip6_only", "http at link", "http://["+strings.Replace(zoned, "%", "%25", 1)+"]:"+port+"/ok")
		add("tcp_connect tcp_ip6_only", "http at link", "["+zoned+"]:"+port)
		add("icmp icmp_ip6_only", "link", zoned)
		add("http_2xx", "every at link", "http://["+strings.Replace(zoned, "%", "%25", 1)+"]:"+w.every+"/ok")
		add("tcp_connect", "every at link", "["+zoned+"]:"+w.every)
	}
	dns := `dns_one dns_any dns_tcp dns_soa dns_soa_none dns_txt dns_six dns_none dns_chaos dns_recursive dns_iterative dns_nxdomain dns_nxdomain_good dns_servfail dns_servfail_good dns_refused
		dns_formerr dns_notimp dns_yxdomain dns_nothing dns_cut dns_cut_match dns_large dns_large_tcp dns_match dns_nomatch dns_all dns_all_not dns_every dns_every_not dns_some dns_some_not
		dns_authority dns_authority_not dns_additional_not dns_source`
	add(dns+" dns_tls", "dns", "@")
	add("dns_tls dns_tls_untrusted dns_tcp dns_one", "dot", "@")
	add("dns_wrongid dns_twice dns_garbage dns_otherquestion dns_noquestion dns_overcount", "odddns", "@")
	add("dns_one dns_tcp dns_soa dns_tls", "refused", "@")
	add("dns_tcp dns_tls", "closes", "@")
	add("dns_tcp dns_tls", "ssh", "@")
	add("dns_one dns_tcp", "no-such-host.invalid", "no-such-host.invalid:53")
	add("dns_one", "127.0.0.1:99999", "127.0.0.1:99999")
	return append(out, []combination{{module: "http_2xx", target: "http/host", url: "http://" + w.at["http"] + "/host", hostname: "virtual.example"},
		{module: "http_host", target: "http/host", url: "http://" + w.at["http"] + "/host", hostname: "virtual.example"},
		{module: "http_host", target: "http/host", url: "http://" + w.at["http"] + "/host", hostname: "other.example"},
		{module: "http_ssl", target: "https/ok", url: "https://" + w.at["https"] + "/ok", hostname: "good.example"},
		{module: "http_ssl", target: "https/ok", url: "https://" + w.at["https"] + "/ok", hostname: "bad.example"},
		{module: "tcp_tls", target: "https", url: w.at["https"], hostname: "good.example"}, {module: "tcp_tls", target: "https", url: w.at["https"], hostname: "bad.example"},
		{module: "tcp_tls_name", target: "https", url: w.at["https"], hostname: "good.example"}, {module: "dns_one", target: "dns", url: w.at["dns"], hostname: "x"},
		{module: "nosuch", target: "http", url: w.at["http"]}, {module: "http_2xx", target: "nothing"}, {module: "nosuch", target: "nothing"}}...)
}
