// Package filesource reads this workload's certificate and the roots from files
// that somebody else renews: an agent, a mounted secret, cert-manager. It is
// the certificate provider plugin "file_watcher" of gRFC A29; see [ParseConfig].
// The roots are those of everybody, or a SPIFFE bundle map with those of each trust
// domain (gRFC A87).
//
// The files are read again at an interval. Certificate and key must belong
// together, must be valid now and must carry a SPIFFE ID; a reading that does
// not pass, or files that change while they are read, leave what was read
// before in use, are reported, and are tried again soon. Certificate and roots
// fail apart: a broken key does not hold new roots up.
package filesource
