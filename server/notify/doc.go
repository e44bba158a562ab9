// Package notify delivers what the outbox owes: it is the part of the leading
// server that tells receivers when an incident opened or was resolved.
package notify
