package discovery

// StatefulSession is the stateful session filter (Envoy, StatefulSession; gRFC
// A55): a caller stays with one endpoint, whose address the caller itself keeps.
// One without Cookie and Header does nothing.
type StatefulSession struct {
	// Cookie is the cookie with the address, if not "": NewCookie says what it is
	// made like. Only requests whose path is at or below its path have sessions.
	Cookie    string
	NewCookie *NewCookie
	// Header is the header with the address, of requests and responses, if not
	// "". It is lower case.
	Header string
	// Strict answers calls whose endpoint cannot be used instead of sending them to
	// another: with StatusMissing if the cluster does not have it, with 503
	// otherwise.
	Strict        bool
	StatusMissing int
}

func (*StatefulSession) filterConfig() {}
