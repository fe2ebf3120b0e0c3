package discovery

// CORS is the CORS filter (Envoy, CorsPolicy): who may call from a browser. The
// zero value does nothing, which is what it is without a route's policy.
type CORS struct {
	// PerMillion of the requests are handled; the others pass as they are.
	PerMillion uint32
	// AllowOrigins are the origins that are allowed, one of which must match; one
	// that matches "*" allows any.
	AllowOrigins []StringMatch
	// AllowMethods, AllowHeaders, ExposeHeaders and MaxAge are the values of the
	// headers access-control-..., "" leaves them out.
	AllowMethods, AllowHeaders, ExposeHeaders, MaxAge string
	AllowCredentials                                  bool
	AllowPrivateNetwork                               bool
	// StopUnmatched answers preflights of origins that are not allowed, instead of
	// passing them on.
	StopUnmatched bool
}

func (*CORS) filterConfig() {}
