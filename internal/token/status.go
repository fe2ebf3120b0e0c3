package token

import "strconv"

// Status is why a token is refused. The numbers and texts are those of Envoy's
// library, which configurations and dashboards know.
type Status uint8

// The reasons. OK is none.
const (
	OK                Status = 0
	Missing           Status = 1
	NotYetValid       Status = 2
	Expired           Status = 3
	BadFormat         Status = 4
	HeaderBadBase64   Status = 5
	HeaderBadJSON     Status = 6
	HeaderBadAlg      Status = 7
	UnsupportedAlg    Status = 8
	HeaderBadKeyID    Status = 9
	PayloadBadBase64  Status = 10
	PayloadBadJSON    Status = 11
	BadIssuer         Status = 12
	BadSubject        Status = 13
	BadIssuedAt       Status = 14
	BadNotBefore      Status = 15
	BadExpiry         Status = 16
	BadID             Status = 17
	BadAudience       Status = 18
	SignatureBadForm  Status = 19
	UnknownIssuer     Status = 21
	AudienceForbidden Status = 22
	BadSignature      Status = 23
	SubjectForbidden  Status = 24
	NoKeys            Status = 28
	NoSuchKey         Status = 29
	KeysUnavailable   Status = 36
	// TooLarge, TooLong and NoExpiry are ours: Envoy has no number for them.
	TooLarge Status = 200
	TooLong  Status = 201
	NoExpiry Status = 202
	// Several is ours: two different tokens that say who the caller is.
	Several Status = 203
)

var statusTexts = map[Status]string{
	OK:                "OK",
	Missing:           "Jwt is missing",
	NotYetValid:       "Jwt not yet valid",
	Expired:           "Jwt is expired",
	BadFormat:         "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
	HeaderBadBase64:   "Jwt header is an invalid Base64url encoded",
	HeaderBadJSON:     "Jwt header is an invalid JSON",
	HeaderBadAlg:      "Jwt header [alg] field is required and must be a string",
	UnsupportedAlg:    "Jwt header [alg] is not supported",
	HeaderBadKeyID:    "Jwt header [kid] field is not a string",
	PayloadBadBase64:  "Jwt payload is an invalid Base64url encoded",
	PayloadBadJSON:    "Jwt payload is an invalid JSON",
	BadIssuer:         "Jwt payload [iss] field is not a string",
	BadSubject:        "Jwt payload [sub] field is not a string",
	BadIssuedAt:       "Jwt payload [iat] field is not an integer or out of range",
	BadNotBefore:      "Jwt payload [nbf] field is not an integer or out of range",
	BadExpiry:         "Jwt payload [exp] field is not an integer or out of range",
	BadID:             "Jwt payload [jti] field is not a string",
	BadAudience:       "Jwt payload [aud] field is not a string or string list",
	SignatureBadForm:  "Jwt signature is an invalid Base64url encoded",
	UnknownIssuer:     "Jwt issuer is not configured",
	AudienceForbidden: "Audiences in Jwt are not allowed",
	BadSignature:      "Jwt verification fails",
	SubjectForbidden:  "Jwt subject is not allowed",
	NoKeys:            "Jwks doesn't have any valid public key",
	NoSuchKey:         "Jwks doesn't have key to match kid or alg from Jwt",
	KeysUnavailable:   "Jwks remote fetch is failed",
	TooLarge:          "Jwt is too large",
	TooLong:           "Jwt is valid for too long",
	NoExpiry:          "Jwt has no expiration",
	Several:           "Several Jwts were given, of which only one can say who calls",
}

// String is the text for whoever sent the token.
func (s Status) String() string {
	if text, ok := statusTexts[s]; ok {
		return text
	}
	return "status " + strconv.Itoa(int(s))
}
