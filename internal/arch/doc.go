// Package arch holds the tests about the code itself: which package may import which, and why, and that every package says what it is for.
package arch
