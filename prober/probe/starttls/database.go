package starttls

import (
	"bytes"
	"encoding/binary"
)

// postgresSSLRequest is the length of the message and the number that asks for TLS in place of a protocol version: 1234 and 5679.
const postgresSSLRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"

func postgres(p *peer, _ Options) error {
	if err := p.say(postgresSSLRequest); err != nil {
		return err
	}
	answer, err := p.take(1)
	if err != nil {
		return err
	}
	switch answer[0] {
	case 'S':
		return nil
	case 'N':
		return refused("the server has no TLS: it answers the SSLRequest with N (ssl = off in postgresql.conf?)")
	case 'E':
		return refused("the server refuses the SSLRequest with an error: it is too old for TLS, or cannot start a process")
	}
	return broken("the server does not speak PostgreSQL: it answers the SSLRequest with %s instead of S or N", quote(append(answer, p.unread...)))
}

// Capability flags of MySQL, of which the SSL request names those that a client of today has.
const (
	mysqlClientSSL              = 0x00000800
	mysqlClientProtocol41       = 0x00000200
	mysqlClientSecureConnection = 0x00008000
	mysqlClientPluginAuth       = 0x00080000
	// mysqlUTF8 is the character set utf8mb4_general_ci.
	mysqlUTF8 = 45
	// mysqlMaxPacket is the longest packet that the client would take.
	mysqlMaxPacket = 1 << 24
)

func mysql(p *peer, _ Options) error {
	header, err := p.take(4)
	if err != nil {
		return err
	}
	n, sequence := int(header[0])|int(header[1])<<8|int(header[2])<<16, header[3]
	if n < 1 || n > MaxBytes-4 || sequence != 0 {
		return broken("the server does not speak MySQL: it begins with %s", quote(append(header, p.unread...)))
	}
	packet, err := p.take(n)
	if err != nil {
		return err
	}
	capabilities, err := mysqlGreeting(packet)
	if err != nil {
		return err
	}
	if capabilities&mysqlClientSSL == 0 {
		return refused("the server does not offer TLS in its greeting (have_ssl is off)")
	}
	request := []byte{32, 0, 0, 1}
	request = binary.LittleEndian.AppendUint32(request, mysqlClientSSL|mysqlClientProtocol41|mysqlClientSecureConnection|mysqlClientPluginAuth)
	request = binary.LittleEndian.AppendUint32(request, mysqlMaxPacket)
	request = append(request, mysqlUTF8)
	return p.say(string(append(request, make([]byte, 23)...)))
}

// mysqlGreeting are the capability flags of an initial handshake packet, version 10, of which only the lower half matters.
func mysqlGreeting(packet []byte) (capabilities uint32, err error) {
	const (
		version     = 10
		afterName   = 4 + 8 + 1 // connection id, first part of the challenge, filler
		errorPacket = 0xff
	)
	if packet[0] == errorPacket && len(packet) >= 3 {
		text := packet[3:]
		if len(text) >= 6 && text[0] == '#' {
			text = text[6:]
		}
		return 0, broken("the server refuses this client: error %d, %s", binary.LittleEndian.Uint16(packet[1:]), quote(text))
	}
	if packet[0] != version {
		return 0, broken("the server does not speak MySQL's protocol 10: its greeting begins with %s", quote(packet))
	}
	name := bytes.IndexByte(packet[1:], 0)
	if name < 0 || len(packet) < 1+name+1+afterName+2 {
		return 0, broken("the server does not speak MySQL: its greeting is too short: %s", quote(packet))
	}
	return uint32(binary.LittleEndian.Uint16(packet[1+name+1+afterName:])), nil
}

// ldapStartTLS is the extended request of StartTLS as message 1: SEQUENCE { INTEGER 1, [APPLICATION 23] { [0] "1.3.6.1.4.1.1466.20037" } }.
const ldapStartTLS = "\x30\x1d\x02\x01\x01\x77\x18\x80\x16" + ldapOID

// ldapOID is the name of StartTLS.
const ldapOID = "1.3.6.1.4.1.1466.20037"

// Tags of BER that an extended response has.
const (
	berInteger      = 0x02
	berOctetString  = 0x04
	berEnumerated   = 0x0a
	berSequence     = 0x30
	berExtended     = 0x78 // [APPLICATION 24] constructed
	berResponseName = 0x8a // [10] primitive
)

func ldap(p *peer, _ Options) error {
	if err := p.say(ldapStartTLS); err != nil {
		return err
	}
	message, err := p.element()
	if err != nil {
		return err
	}
	code, diagnostic, err := ldapResponse(message)
	if err != nil {
		return err
	}
	if code != 0 {
		return refused("the server refuses StartTLS: result code %d (%s), %s", code, ldapCode(code), quote([]byte(diagnostic)))
	}
	return nil
}

// element reads the message of LDAP: a SEQUENCE. It gives its contents.
func (p *peer) element() ([]byte, error) {
	head, err := p.take(2)
	if err != nil {
		return nil, err
	}
	if head[0] != berSequence {
		return nil, broken("the server does not speak LDAP: it answers with %s", quote(append(head, p.unread...)))
	}
	n := int(head[1])
	if n >= 0x80 {
		// The long form, which servers may use for short messages too. 0x80 alone, the indefinite form, is not for LDAP (RFC 4511, section 5.1).
		size := n & 0x7f
		if size == 0 || size > 4 {
			return nil, broken("the server does not speak LDAP: the length of its answer is not valid")
		}
		bytes, err := p.take(size)
		if err != nil {
			return nil, err
		}
		n = 0
		for _, b := range bytes {
			if n = n<<8 | int(b); n > MaxBytes {
				return nil, broken("the server announced an answer of more than %d bytes", MaxBytes)
			}
		}
	}
	return p.take(n)
}

// ldapResponse takes an extended response to message 1 apart (RFC 4511, sections 4.1.9 and 4.12). What follows the diagnostic message is looked at for its form only.
func ldapResponse(message []byte) (code int, diagnostic string, err error) {
	malformed := broken("the server does not speak LDAP: its answer is no extended response to StartTLS: %s", quote(message))
	id, rest, ok := ber(message, berInteger)
	if !ok || len(id) != 1 || id[0] > 1 {
		return 0, "", malformed
	}
	response, controls, ok := ber(rest, berExtended)
	if !ok || len(controls) > 0 && !wellFormed(controls) {
		return 0, "", malformed
	}
	result, rest, ok := ber(response, berEnumerated)
	if !ok || len(result) != 1 || result[0] > 0x7f {
		return 0, "", malformed
	}
	_, rest, ok = ber(rest, berOctetString)
	if !ok {
		return 0, "", malformed
	}
	text, rest, ok := ber(rest, berOctetString)
	if !ok || !wellFormed(rest) {
		return 0, "", malformed
	}
	// Message 0 is an unsolicited notification, such as the notice of disconnection.
	if id[0] == 0 {
		return 0, "", broken("the server ends the connection: %s, %s", ldapCode(int(result[0])), quote(text))
	}
	for len(rest) > 0 {
		tag := rest[0]
		var value []byte
		if value, rest, ok = ber(rest, tag); !ok || tag == berResponseName && string(value) != ldapOID && len(value) > 0 {
			return 0, "", malformed
		}
	}
	return int(result[0]), string(text), nil
}

// ber reads one element with a tag of one byte and a definite length.
func ber(data []byte, tag byte) (value, rest []byte, ok bool) {
	if len(data) < 2 || data[0] != tag {
		return nil, nil, false
	}
	n, data := int(data[1]), data[2:]
	if n >= 0x80 {
		size := n & 0x7f
		if size == 0 || size > 4 || len(data) < size {
			return nil, nil, false
		}
		n = 0
		for _, b := range data[:size] {
			n = n<<8 | int(b)
		}
		data = data[size:]
	}
	if n < 0 || n > len(data) {
		return nil, nil, false
	}
	return data[:n], data[n:], true
}

// wellFormed tells whether data is a row of whole elements.
func wellFormed(data []byte) bool {
	for len(data) > 0 {
		_, rest, ok := ber(data, data[0])
		if !ok {
			return false
		}
		data = rest
	}
	return true
}

// ldapCode is the name of the result codes that a server answers StartTLS with (RFC 4511, appendix A).
func ldapCode(code int) string {
	names := map[int]string{0: "success", 1: "operationsError", 2: "protocolError", 8: "strongerAuthRequired", 10: "referral", 12: "unavailableCriticalExtension",
		13: "confidentialityRequired", 51: "busy", 52: "unavailable", 53: "unwillingToPerform", 80: "other"}
	if n, ok := names[code]; ok {
		return n
	}
	return "unknown"
}
