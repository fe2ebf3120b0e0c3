// Package lastgood keeps accepted resources in a file, so that a process that
// starts while the control plane is away has the last known good ones.
//
// What it guarantees:
//
//   - A reader finds a whole file or none: it is written beside the old one,
//     synced, and renamed over it. A checksum covers every byte.
//   - A file is used as a whole or not at all. One that is damaged, of another
//     format, of another workload, too old, too large, or that others could have
//     written, is refused with its reason.
//   - Nothing is in it that a field marked as sensitive in Envoy's API holds, such
//     as an inline private key: a resource with one is not kept.
//   - A file has one writer, which holds a lock on it. Processes of the same
//     identity in the same directory have a file each.
//   - Writing happens on one goroutine, after changes have come to rest for a
//     moment, and never in the way of who reports a change. A disk that is full or
//     read-only is reported and changes nothing else.
//
// The checksum finds damage, not malice: what protects the file is that only its
// owner may write it.
package lastgood
