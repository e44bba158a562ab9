// Package spool keeps messages on disk until somebody has said that they are no longer needed: a prober's results until a server has them in its history, and a
// server's results until the other servers have them in theirs.
//
// [Spool.Append] gives a result its sequence number and keeps it ([Spool.Put] does so with any message); [Reader] reads from any number on, in order; [Spool.Ack] lets go of a number and all
// lower ones. It is bounded: when full, the oldest segment is dropped, counted and logged. A healthy session acknowledges within a second, so
// most results are let go of before they ever reach the disk.
//
// # On disk
//
// The directory has segment files, `<number>.seg`: a header (magic, boot) and records, each with a length, a CRC-32C, its sequence number, flags
// and the encoded result. A segment ends at a sixteenth of the limit, between 64 KiB and 4 MiB. The file `head` says up to where the oldest segment was
// acknowledged.
//
// Appends gather in memory and are written when they reach 32 KiB or are 100 ms old; the file is synced at most once a second. So a
// SIGKILL loses at most the last 100 ms, a power cut about the last second, of those results that no server had yet.
//
// # What goes wrong
//
//   - A torn tail (SIGKILL in the middle of a write) is cut off and counted.
//   - A corrupt record is left out. The file as it was is set aside as `<number>.seg.corrupt` (the newest four of these are kept) and logged; all records
//     that verify stay.
//   - A disk that is full or fails: results stay in memory (16 MiB, oldest dropped and counted), logged once; each second the disk is tried again, and
//     when it works, what is in memory goes to it.
//
// # Boots
//
// Sequence numbers belong to one boot of the prober and start at 1. What [Open] finds was left by an earlier boot: it is numbered anew, from 1 in its
// old order, before the first new result. Acknowledgements then work for it as for all others. Its start times stay, so the history is right, and drops
// what it had already.
//
// With [Config.First] set it is otherwise: what is found keeps its numbers, and new ones begin at First, which must be above all that were ever given out. So
// several readers, each of which remembers how far it is, can go on where they were after a restart.
package spool
