package notify

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// message is what one attempt sends.
type message struct {
	// key is the idempotency key.
	key string
	// notification is the content.
	notification *meshv1.Notification
}

// body is the notification as receivers get it: protojson in snake_case with every field present, compact (protojson itself varies its spaces).
func body(n *meshv1.Notification) ([]byte, error) {
	loose, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("the notification cannot be written as JSON: %w", err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, loose); err != nil {
		return nil, fmt.Errorf("the notification cannot be written as JSON: %w", err)
	}
	return b.Bytes(), nil
}

// sign is the value of Probemesh-Signature.
func sign(key string, body []byte) string {
	h := hmac.New(sha256.New, []byte(key))
	h.Write(body)
	return "sha256=" + hex.EncodeToString(h.Sum(nil))
}
