package spec

import (
	"fmt"
	"slices"
	"strings"
)

// otherScheme says what to write in the place of a scheme that people know from elsewhere, in words that follow "write "; empty when there is nothing to say. The name is in lower case.
func otherScheme(name string) string {
	starttls := name
	if name == "postgresql" {
		starttls = "postgres"
	}
	if slices.Contains(StartTLSProtocols(), starttls) {
		port, _ := StartTLSPort(starttls)
		return fmt.Sprintf("tls://host:%d with tls.starttls %s to watch TLS within it, or tcp://host:%d with tcp.steps that speak it", port, starttls, port)
	}
	switch name {
	case "ping", "icmp4", "icmp6", "icmpv4", "icmpv6", "ping4", "ping6":
		return "icmp://host" + familyHint(name, "icmp")
	case "tcp4", "tcp6", "udp4", "udp6":
		kind := name[:3]
		return kind + "://host:port" + familyHint(name, kind)
	case "http2", "h2", "http3", "h3", "quic":
		return "https://host/path with http.version"
	case "websocket", "websockets", "socket":
		return "wss://host/path, or ws:// without TLS"
	case "ssl", "https+tls":
		return "tls://host:port"
	case "domain", "nameserver", "resolver":
		return "dns://server/name"
	case "dot", "doh", "doq":
		return "dns://server/name with dns.transport"
	case "grpc+tls", "grpc-tls":
		return "grpcs://host:port"
	case "unixs", "unix+http", "http+unix", "socket+unix":
		return "unix:///path/to.sock"
	}
	if port := map[string]int{"smtps": 465, "imaps": 993, "pop3s": 995, "ldaps": 636, "ftps": 990, "mqtts": 8883, "amqps": 5671, "ircs": 6697, "sips": 5061}[name]; port != 0 {
		return fmt.Sprintf("tls://host:%d to watch its certificate, or tcp://host:%d with tcp.use_tls and tcp.steps", port, port)
	}
	if port := map[string]int{"ssh": 22, "sftp": 22, "telnet": 23, "redis": 6379, "memcached": 11211, "amqp": 5672, "mqtt": 1883, "mongodb": 27017, "mssql": 1433, "sqlserver": 1433, "oracle": 1521,
		"kafka": 9092, "nats": 4222, "zookeeper": 2181, "cassandra": 9042, "rdp": 3389, "irc": 6667, "rtmp": 1935, "rtsp": 554, "git": 9418, "rsync": 873, "vnc": 5900, "smb": 445}[name]; port != 0 {
		return fmt.Sprintf("tcp://host:%d, with tcp.steps to speak it", port)
	}
	if name == "rediss" {
		return "tcp://host:6379 with tcp.use_tls, and tcp.steps to speak it"
	}
	if port := map[string]int{"ntp": 123, "snmp": 161, "sip": 5060, "tftp": 69, "radius": 1812, "syslog": 514, "stun": 3478}[name]; port != 0 {
		return fmt.Sprintf("udp://host:%d with what to send and to expect in udp", port)
	}
	return ""
}

// familyHint says how to ask for the IP family that a scheme names.
func familyHint(name, kind string) string {
	switch {
	case strings.HasSuffix(name, "4"):
		return fmt.Sprintf(" with %s.ip_family IPV4", kind)
	case strings.HasSuffix(name, "6"):
		return fmt.Sprintf(" with %s.ip_family IPV6", kind)
	}
	return ""
}
