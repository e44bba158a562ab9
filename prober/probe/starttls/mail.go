package starttls

import (
	"net"
	"net/netip"
	"strings"
)

// reply is an answer of a protocol with three-digit codes.
type reply struct {
	code  string
	lines []string // the texts behind the codes
}

// text is the reply as an error quotes it.
func (r reply) text() string { return quote([]byte(r.code + " " + r.lines[len(r.lines)-1])) }

// reply reads an answer with a three-digit code. Its lines but the last have a hyphen behind the code. strict asks for the code on every line, as SMTP does (RFC 5321,
// section 4.2.1); FTP allows any text between the first line and the last (RFC 959, section 4.2).
func (p *peer) reply(protocol string, strict bool) (reply, error) {
	var r reply
	for {
		line, err := p.line()
		if err != nil {
			return r, err
		}
		code, more, text, ok := cutCode(line)
		switch {
		case r.code == "" && !ok:
			return r, broken("the server does not speak %s: it sent %s", protocol, quote([]byte(line)))
		case r.code == "":
			r.code = code
		case ok && code == r.code:
		case strict:
			return r, broken("the server does not speak %s: the lines of its answer %s do not belong together, one is %s", protocol, r.code, quote([]byte(line)))
		default:
			more, text = true, line
		}
		r.lines = append(r.lines, text)
		if !more {
			return r, nil
		}
	}
}

// cutCode takes a line with a three-digit code apart.
func cutCode(line string) (code string, more bool, text string, ok bool) {
	if len(line) < 3 || line[0] < '1' || line[0] > '5' || line[1] < '0' || line[1] > '9' || line[2] < '0' || line[2] > '9' {
		return "", false, "", false
	}
	if len(line) == 3 {
		return line, false, "", true
	}
	if line[3] != ' ' && line[3] != '-' {
		return "", false, "", false
	}
	return line[:3], line[3] == '-', line[4:], true
}

// smtp is the dialogue of SMTP and LMTP, which differ in how the client greets.
func smtp(p *peer, hello string, o Options) error {
	greeting, err := p.reply("SMTP", true)
	if err != nil {
		return err
	}
	if greeting.code != "220" {
		return broken("the server greets with %s instead of 220: it does not serve this client", greeting.text())
	}
	name := o.ClientName
	if name == "" {
		name = addressLiteral(p.conn.LocalAddr())
	}
	if err := p.say(hello + " " + name + "\r\n"); err != nil {
		return err
	}
	features, err := p.reply("SMTP", true)
	if err != nil {
		return err
	}
	if features.code != "250" {
		return broken("the server answers %s with %s instead of 250", hello, features.text())
	}
	offered := false
	for _, f := range features.lines[1:] {
		offered = offered || strings.EqualFold(strings.TrimRight(f, " "), "STARTTLS")
	}
	if !offered {
		return refused("the server does not offer STARTTLS in its answer to %s", hello)
	}
	return p.ask("SMTP", "STARTTLS", "220", true)
}

// ask sends a command and expects one code.
func (p *peer) ask(protocol, command, code string, strict bool) error {
	if err := p.say(command + "\r\n"); err != nil {
		return err
	}
	r, err := p.reply(protocol, strict)
	if err != nil {
		return err
	}
	if r.code != code {
		return refused("the server refuses TLS: it answers %s with %s instead of %s", command, r.text(), code)
	}
	return nil
}

// addressLiteral is an address as EHLO takes it in place of a name.
func addressLiteral(local net.Addr) string {
	if local != nil {
		if a, err := netip.ParseAddrPort(local.String()); err == nil {
			addr := a.Addr().Unmap().WithZone("")
			if addr.Is4() {
				return "[" + addr.String() + "]"
			}
			return "[IPv6:" + addr.String() + "]"
		}
	}
	return "[127.0.0.1]"
}

func ftp(p *peer, _ Options) error {
	greeting, err := p.reply("FTP", false)
	if err == nil && greeting.code == "120" {
		greeting, err = p.reply("FTP", false)
	}
	if err != nil {
		return err
	}
	if greeting.code != "220" {
		return broken("the server greets with %s instead of 220: it does not serve this client", greeting.text())
	}
	return p.ask("FTP", "AUTH TLS", "234", false)
}

func nntp(p *peer, _ Options) error {
	greeting, err := p.reply("NNTP", true)
	if err != nil {
		return err
	}
	if greeting.code != "200" && greeting.code != "201" {
		return broken("the server greets with %s instead of 200 or 201: it does not serve this client", greeting.text())
	}
	return p.ask("NNTP", "STARTTLS", "382", true)
}

func pop3(p *peer, _ Options) error {
	greeting, err := p.line()
	if err != nil {
		return err
	}
	if !word(greeting, "+OK") {
		return broken("the server does not speak POP3: it greets with %s instead of +OK", quote([]byte(greeting)))
	}
	if err := p.say("STLS\r\n"); err != nil {
		return err
	}
	answer, err := p.line()
	switch {
	case err != nil:
		return err
	case word(answer, "+OK"):
		return nil
	case word(answer, "-ERR"):
		return refused("the server refuses TLS: it answers STLS with %s instead of +OK", quote([]byte(answer)))
	}
	return broken("the server does not speak POP3: it answers STLS with %s", quote([]byte(answer)))
}

func imap(p *peer, _ Options) error {
	greeting, err := p.line()
	switch {
	case err != nil:
		return err
	case word(greeting, "* PREAUTH"):
		return refused("the server greets with PREAUTH, after which IMAP has no STARTTLS")
	case word(greeting, "* BYE"):
		return broken("the server greets with %s: it does not serve this client", quote([]byte(greeting)))
	case !word(greeting, "* OK"):
		return broken("the server does not speak IMAP: it greets with %s instead of * OK", quote([]byte(greeting)))
	}
	untagged, err := p.tagged("a1", "CAPABILITY")
	if err != nil {
		return err
	}
	offered := false
	for _, line := range untagged {
		if word(line, "* CAPABILITY") {
			for _, c := range strings.Fields(line)[2:] {
				offered = offered || strings.EqualFold(c, "STARTTLS")
			}
		}
	}
	if !offered {
		return refused("the server does not offer STARTTLS in its answer to CAPABILITY")
	}
	_, err = p.tagged("a2", "STARTTLS")
	return err
}

// tagged sends an IMAP command and reads up to its end, which must be OK. It gives the untagged lines before that.
func (p *peer) tagged(tag, command string) (untagged []string, err error) {
	if err := p.say(tag + " " + command + "\r\n"); err != nil {
		return nil, err
	}
	for {
		line, err := p.line()
		switch {
		case err != nil:
			return nil, err
		case strings.HasPrefix(line, "* "):
			untagged = append(untagged, line)
		case word(line, tag+" OK"):
			return untagged, nil
		case word(line, tag+" NO"), word(line, tag+" BAD"):
			return nil, refused("the server answers %s with %s instead of OK", command, quote([]byte(line)))
		default:
			return nil, broken("the server does not speak IMAP: it answers %s with %s", command, quote([]byte(line)))
		}
	}
}

func sieve(p *peer, _ Options) error {
	offered := false
	for {
		line, err := p.line()
		if err != nil {
			return err
		}
		if word(line, "OK") {
			break
		}
		if !strings.HasPrefix(line, `"`) {
			return broken("the server does not speak ManageSieve: it sent %s instead of a capability or OK", quote([]byte(line)))
		}
		offered = offered || word(line, `"STARTTLS"`)
	}
	if !offered {
		return refused("the server does not offer STARTTLS in its greeting")
	}
	if err := p.say("STARTTLS\r\n"); err != nil {
		return err
	}
	answer, err := p.line()
	switch {
	case err != nil:
		return err
	case word(answer, "OK"):
		return nil
	case word(answer, "NO"), word(answer, "BYE"):
		return refused("the server refuses TLS: it answers STARTTLS with %s instead of OK", quote([]byte(answer)))
	}
	return broken("the server does not speak ManageSieve: it answers STARTTLS with %s", quote([]byte(answer)))
}

// word tells whether a line begins with a word, in either case, and then ends or goes on behind a space.
func word(line, w string) bool {
	return len(line) >= len(w) && strings.EqualFold(line[:len(w)], w) && (len(line) == len(w) || line[len(w)] == ' ')
}
