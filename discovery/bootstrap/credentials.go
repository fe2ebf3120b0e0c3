package bootstrap

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	registry "google.golang.org/grpc/xds/bootstrap"

	"github.com/inboardmesh/inboard/internal/hangup"
)

// The types of credentials that are built in.
const (
	channelInsecure = "insecure"
	channelTLS      = "tls"
	callJWT         = "jwt_token_file"
	// ChannelGuest is the type by which native gRPC in this process is sent to the
	// mesh (package mesh/nativegrpc). The mesh itself takes the type that follows.
	ChannelGuest = "inboard"

	channelTypes = `"insecure", "tls" or a type registered with google.golang.org/grpc/xds/bootstrap`
	callTypes    = `"jwt_token_file" or a type registered with google.golang.org/grpc/xds/bootstrap`
)

// Credentials names a type of channel or call credentials and configures it.
type Credentials struct {
	Type string
	// Config is what the type says, nil without one. For "tls" it is an object
	// with ca_certificate_file (default: the system's roots), certificate_file
	// and private_key_file (default: no client certificate), or, in place of
	// these two, certificate_provider_instance, which is ours: the name of the
	// certificate provider instance whose certificate is presented. For
	// "jwt_token_file" it is one with jwt_token_file.
	Config json.RawMessage
}

// String returns the type. The configuration is not shown: it can hold
// secrets.
func (c Credentials) String() string { return c.Type }

// MarshalText returns the type, so that no structured log shows the
// configuration.
func (c Credentials) MarshalText() ([]byte, error) { return []byte(c.Type), nil }

func supportsChannel(name string) bool {
	return name == channelInsecure || name == channelTLS || name != ChannelGuest && registry.GetChannelCredentials(name) != nil
}

func supportsCall(name string) bool {
	return name == callJWT || registry.GetCallCredentials(name) != nil
}

// checkChannel adds the mistakes of channel credentials at path to found.
func (c Credentials) checkChannel(found *problems, path string) {
	switch {
	case c.Type == "":
		found.addf(path, "is required: one of %s", channelTypes)
	case c.Type == channelInsecure:
	case c.Type == channelTLS:
		parseTLS(found, path+".config", c.Config)
	case !supportsChannel(c.Type):
		found.addf(path, "expected one of %s, found %q", channelTypes, shorten(c.Type))
	default:
		if _, release, err := c.registeredChannel(); err != nil {
			found.addf(path+".config", "%s", text(err))
		} else {
			release()
		}
	}
}

// checkCall adds the mistakes of call credentials at path to found.
func (c Credentials) checkCall(found *problems, path string) {
	switch {
	case c.Type == callJWT:
		parseToken(found, path+".config", c.Config)
	case !supportsCall(c.Type):
		found.addf(path, "expected one of %s, found %q", callTypes, shorten(c.Type))
	default:
		if _, release, err := c.registeredCall(); err != nil {
			found.addf(path+".config", "%s", text(err))
		} else {
			release()
		}
	}
}

// credentials returns the dial options for the server's channel and call
// credentials, of a channel whose connections are to be among the lines, if there are
// any.
func (s *Server) credentials(lines *hangup.Lines) (options []grpc.DialOption, release func(), err error) {
	secure := func(creds credentials.TransportCredentials) grpc.DialOption {
		if lines != nil {
			creds = lines.Secure(creds)
		}
		return grpc.WithTransportCredentials(creds)
	}
	var releases []func()
	releaseAll := func() {
		for _, f := range releases {
			f()
		}
	}
	defer func() {
		if err != nil {
			releaseAll()
		}
	}()
	var found problems
	switch s.ChannelCreds.Type {
	case channelInsecure:
		options = append(options, secure(insecure.NewCredentials()))
	case channelTLS:
		config := parseTLS(&found, "channel_creds", s.ChannelCreds.Config)
		files := &fileTLS{files: config.certificateFiles}
		if config.instance != "" {
			lookUp := s.Certificate
			if lookUp == nil {
				return nil, nil, fmt.Errorf("channel_creds: %s %q: nothing provides certificates: set Server.Certificate", keyInstance, config.instance)
			}
			files.certificate = func() (*tls.Certificate, error) { return lookUp(config.instance) }
		}
		options = append(options, secure(files))
	default:
		bundle, free, err := s.ChannelCreds.registeredChannel()
		if err != nil {
			return nil, nil, fmt.Errorf("channel_creds %q: %w", s.ChannelCreds.Type, err)
		}
		releases = append(releases, free)
		own := bundle
		if lines != nil {
			own = lines.Bundle(bundle)
		}
		options = append(options, grpc.WithCredentialsBundle(own))
		if more, ok := bundle.(interface{ DialOptions() []grpc.DialOption }); ok {
			options = append(options, more.DialOptions()...)
		}
	}
	for _, c := range s.CallCreds {
		if c.Type == callJWT {
			token := &tokenFile{path: parseToken(&found, "call_creds", c.Config)}
			options = append(options, grpc.WithPerRPCCredentials(token))
			continue
		}
		creds, free, err := c.registeredCall()
		if err != nil {
			return nil, nil, fmt.Errorf("call_creds %q: %w", c.Type, err)
		}
		releases = append(releases, free)
		options = append(options, grpc.WithPerRPCCredentials(creds))
	}
	if err := found.err(); err != nil {
		return nil, nil, err
	}
	return options, releaseAll, nil
}

// registeredChannel builds channel credentials of a registered type.
func (c Credentials) registeredChannel() (credentials.Bundle, func(), error) {
	builder := registry.GetChannelCredentials(c.Type)
	if builder == nil {
		return nil, nil, errors.New("the type is not registered with google.golang.org/grpc/xds/bootstrap")
	}
	bundle, release, err := builder.Build(c.Config)
	if release == nil {
		release = func() {}
	}
	if err == nil && bundle == nil {
		err = errors.New("the registered type built nothing")
	}
	return bundle, release, err
}

// registeredCall builds call credentials of a registered type.
func (c Credentials) registeredCall() (credentials.PerRPCCredentials, func(), error) {
	builder := registry.GetCallCredentials(c.Type)
	if builder == nil {
		return nil, nil, errors.New("the type is not registered with google.golang.org/grpc/xds/bootstrap")
	}
	creds, release, err := builder.Build(c.Config)
	if release == nil {
		release = func() {}
	}
	if err == nil && creds == nil {
		err = errors.New("the registered type built nothing")
	}
	return creds, release, err
}
