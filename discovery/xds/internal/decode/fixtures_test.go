package decode

// The fixtures populate, between them, every field that a decoder reads, each
// with another value than its default; TestEveryReadFieldMatters proves it.

const routesFixture = `{
  "name": "outbound|80||payment.shop",
  "mostSpecificHeaderMutationsWins": true,
  "ignorePortInHostMatching": true,
  "maxDirectResponseBodySizeBytes": 3,
  "requestHeadersToAdd": [{"header": {"key": "X-Table", "value": "100%%"}, "appendAction": "ADD_IF_ABSENT", "keepEmptyValue": true}],
  "requestHeadersToRemove": ["X-Gone"],
  "responseHeadersToAdd": [{"header": {"key": "x-raw", "rawValue": "cmF3"}, "append": false}],
  "responseHeadersToRemove": ["x-gone-too"],
  "typedPerFilterConfig": {"fault": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
    "delay": {"fixedDelay": "1s", "percentage": {"numerator": 5}}}},
  "virtualHosts": [{
    "name": "payment",
    "domains": ["payment.shop", "*.payment.shop"],
    "requestHeadersToAdd": [{"header": {"key": "x-host", "value": "1"}}],
    "requestHeadersToRemove": ["x-a"],
    "responseHeadersToAdd": [{"header": {"key": "x-host", "value": "1"}}],
    "responseHeadersToRemove": ["x-b"],
    "typedPerFilterConfig": {
      "off": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true},
      "skipped": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "isOptional": true,
        "config": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}},
      "wrapped": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
          "abort": {"grpcStatus": 14, "percentage": {"numerator": 1, "denominator": "TEN_THOUSAND"}},
          "headers": [{"name": "x-fault", "presentMatch": true}],
          "maxActiveFaults": 7}}
    },
    "retryPolicy": {"retryOn": "connect-failure", "numRetries": 2},
    "hedgePolicy": {"hedgeOnPerTryTimeout": true, "initialRequests": 1},
    "includeRequestAttemptCount": true, "includeAttemptCountInResponse": true, "includeIsTimeoutRetryHeader": true,
    "routes": [
      {
        "name": "canary",
        "match": {
          "prefix": "/pay", "caseSensitive": false,
          "runtimeFraction": {"defaultValue": {"numerator": 25, "denominator": "HUNDRED"}},
          "headers": [
            {"name": "X-Exact", "exactMatch": "a"},
            {"name": "x-prefix", "prefixMatch": "a"},
            {"name": "x-suffix", "suffixMatch": "a"},
            {"name": "x-contains", "containsMatch": "a"},
            {"name": "x-regex", "safeRegexMatch": {"regex": "a+"}},
            {"name": "x-range", "rangeMatch": {"start": "1", "end": "9"}},
            {"name": "x-present", "presentMatch": true, "invertMatch": true},
            {"name": "x-string", "stringMatch": {"suffix": "z"}, "treatMissingHeaderAsEmpty": true}
          ],
          "queryParameters": [
            {"name": "q", "stringMatch": {"contains": "v", "ignoreCase": true}},
            {"name": "q2", "presentMatch": true}
          ]
        },
        "requestHeadersToAdd": [{"header": {"key": "x-route", "value": "1"}}],
        "requestHeadersToRemove": ["x-a"],
        "responseHeadersToAdd": [{"header": {"key": "x-route", "value": "1"}}],
        "responseHeadersToRemove": ["x-b"],
        "typedPerFilterConfig": {"fault": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
          "abort": {"httpStatus": 503, "percentage": {"numerator": 1, "denominator": "MILLION"}}}},
        "route": {
          "weightedClusters": {"totalWeight": 100, "clusters": [
            {"name": "v1", "weight": 90,
             "requestHeadersToAdd": [{"header": {"key": "x-cluster", "value": "1"}}],
             "requestHeadersToRemove": ["x-a"],
             "responseHeadersToAdd": [{"header": {"key": "x-cluster", "value": "1"}}],
             "responseHeadersToRemove": ["x-b"],
             "typedPerFilterConfig": {"off": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true}}},
            {"name": "v2", "weight": 10}
          ]},
          "prefixRewrite": "/v1", "hostRewriteLiteral": "payment-v1.shop",
          "timeout": "3s", "priority": "HIGH", "hedgePolicy": {"hedgeOnPerTryTimeout": true},
          "maxStreamDuration": {"maxStreamDuration": "10s", "grpcTimeoutHeaderMax": "5s", "grpcTimeoutHeaderOffset": "0.100s"}, "idleTimeout": "7s",
          "retryPolicy": {
            "retryOn": "5xx, unavailable,retriable-status-codes", "numRetries": 3,
            "perTryTimeout": "0.250s",
            "retryHostPredicate": [
              {"name": "envoy.retry_host_predicates.previous_hosts"},
              {"name": "any", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}},
              {"name": "canary", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"}},
              {"name": "metadata", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig",
                "metadataMatch": {"filterMetadata": {"envoy.lb": {"stage": "test", "old": true}}}}}
            ],
            "retryPriority": {"name": "priorities", "typedConfig": {
              "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig", "updateFrequency": 2}},
            "perTryIdleTimeout": "0.500s",
            "retriableHeaders": [{"name": "X-Again", "presentMatch": true}],
            "retriableRequestHeaders": [{"name": "x-may", "exactMatch": "yes"}],
            "rateLimitedRetryBackOff": {"maxInterval": "60s",
              "resetHeaders": [{"name": "Retry-After"}, {"name": "X-RateLimit-Reset", "format": "UNIX_TIMESTAMP"}]},
            "hostSelectionRetryMaxAttempts": "5", "retriableStatusCodes": [503, 429],
            "retryBackOff": {"baseInterval": "0.010s", "maxInterval": "0.100s"}
          }
        }
      },
      {"match": {"path": "/exact"}, "route": {"cluster": "v1"}, "metadata": {"filterMetadata": {
        "inboard.hedge": {"delay": "50ms", "maxAttempts": 3}, "inboard.deadline": {"minimum": "20ms"}, "istio": {"config": "anything"}}}},
      {"match": {"pathSeparatedPrefix": "/sep"}, "redirect": {"schemeRedirect": "http", "hostRedirect": "h", "portRedirect": 81,
        "pathRedirect": "/p", "responseCode": "TEMPORARY_REDIRECT", "stripQuery": true}},
      {"match": {"prefix": "/secure"}, "redirect": {"httpsRedirect": true, "prefixRewrite": "/s"}},
      {"match": {"safeRegex": {"regex": "/a(b|c)"}}, "directResponse": {"status": 418, "body": {"inlineString": "tea"}}},
      {"match": {"prefix": "/bytes"}, "directResponse": {"status": 200, "body": {"inlineBytes": "aGk="}}},
      {"match": {"prefix": "/"}, "nonForwardingAction": {}}
    ]
  }],
  "clusterSpecifierPlugins": [{"extension": {"name": "unused",
    "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}, "isOptional": true}]
}`

const apiListenerFixture = `{
  "name": "payment.shop:80",
  "apiListener": {"apiListener": {
    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "rds": {"routeConfigName": "outbound|80||payment.shop", "configSource": {"self": {}, "resourceApiVersion": "V3"}},
    "commonHttpProtocolOptions": {"maxStreamDuration": "30s"}, "streamIdleTimeout": "40s",
    "httpFilters": [
      {"name": "unknown", "isOptional": true, "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}},
      {"name": "fault", "disabled": true, "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "delay": {"fixedDelay": "2s", "percentage": {"numerator": 10}}}},
      {"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
    ]
  }}
}`

const inboundFixture = `{
  "name": "xds.istio.io/grpc/lds/inbound/0.0.0.0:8080",
  "address": {"socketAddress": {"address": "0.0.0.0", "portValue": 8080}},
  "listenerFilters": [{"name": "envoy.filters.listener.tls_inspector",
    "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}],
  "filterChains": [
    {
      "name": "mtls",
      "filterChainMatch": {"transportProtocol": "tls", "applicationProtocols": ["h2", "http/1.1"], "destinationPort": 8080},
      "transportSocket": {"name": "envoy.transport_sockets.tls", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "requireClientCertificate": true,
        "commonTlsContext": {
          "tlsCertificateProviderInstance": {"instanceName": "default", "certificateName": "default"},
          "validationContext": {"caCertificateProviderInstance": {"instanceName": "roots", "certificateName": "ROOTCA"}},
          "alpnProtocols": ["h2", "http/1.1"]
        }}},
      "filters": [{"name": "hcm", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "streamIdleTimeout": "40s", "requestTimeout": "50s",
        "routeConfig": {"name": "inbound", "virtualHosts": [{"domains": ["*"], "routes": [{"match": {"prefix": "/"}, "nonForwardingAction": {}}]}]},
        "httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]
    }
  ],
  "defaultFilterChain": {
    "name": "plaintext",
    "filters": [{"name": "hcm", "typedConfig": {
      "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
      "rds": {"routeConfigName": "inbound-routes", "configSource": {"ads": {}}},
      "commonHttpProtocolOptions": {"maxStreamDuration": "20s", "maxHeadersCount": 50},
      "maxRequestHeadersKb": 32, "useRemoteAddress": true, "xffNumTrustedHops": 2, "skipXffAppend": true,
      "internalAddressConfig": {"cidrRanges": [{"addressPrefix": "10.0.0.0", "prefixLen": 8}]},
      "generateRequestId": true, "preserveExternalRequestId": true,
      "forwardClientCertDetails": "SANITIZE_SET",
      "setCurrentClientCertDetails": {"subject": true, "cert": true, "chain": true, "dns": true, "uri": true},
      "httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]
  }
}`

// permissiveFixture has chains that differ by transport protocol, and the
// deprecated certificate fields that istiod sends.
const permissiveFixture = `{
  "name": "inbound",
  "address": {"socketAddress": {"address": "::", "portValue": 9090}},
  "filterChains": [
    {
      "filterChainMatch": {"transportProtocol": "tls"},
      "transportSocket": {"name": "tls", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "commonTlsContext": {
          "tlsCertificateCertificateProviderInstance": {"instanceName": "default"},
          "combinedValidationContext": {
            "defaultValidationContext": {"matchTypedSubjectAltNames": [{"sanType": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}}]},
            "validationContextCertificateProviderInstance": {"instanceName": "default", "certificateName": "ROOTCA"}
          }
        }}},
      "filters": [{"name": "hcm", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "rds": {"routeConfigName": "r", "configSource": {"ads": {}}},
        "originalIpDetectionExtensions": [{"name": "xff", "typedConfig": {
          "@type": "type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig", "xffNumTrustedHops": 1, "skipXffAppend": true}}],
        "httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]
    },
    {
      "filterChainMatch": {"transportProtocol": "raw_buffer"},
      "transportSocket": {"name": "raw", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}},
      "filters": [{"name": "hcm", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "rds": {"routeConfigName": "r", "configSource": {"ads": {}}},
        "originalIpDetectionExtensions": [{"name": "xff", "typedConfig": {
          "@type": "type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig",
          "xffTrustedCidrs": {"cidrs": [{"addressPrefix": "::ffff:10.0.0.0", "prefixLen": 104}]}}}],
        "httpFilters": [{"name": "router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]
    }
  ]
}`

const edsClusterFixture = `{
  "upstreamConnectionOptions": {"tcpKeepalive": {"keepaliveProbes": 3, "keepaliveTime": 60, "keepaliveInterval": 5},
    "happyEyeballsConfig": {"firstAddressFamilyVersion": "V4", "firstAddressFamilyCount": 2}},
  "preconnectPolicy": {"perUpstreamPreconnectRatio": 1.25, "predictivePreconnectRatio": 1},
  "name": "outbound|80||payment.shop",
  "type": "EDS",
  "edsClusterConfig": {"serviceName": "payment-endpoints", "edsConfig": {"ads": {}, "resourceApiVersion": "V3"}},
  "connectTimeout": "1s",
  "lbPolicy": "LEAST_REQUEST",
  "leastRequestLbConfig": {"choiceCount": 3, "activeRequestBias": {"defaultValue": 1.5, "runtimeKey": "k"}},
  "commonLbConfig": {"healthyPanicThreshold": {"value": 30.7}, "localityWeightedLbConfig": {}},
  "circuitBreakers": {"thresholds": [
    {"maxConnections": 1, "maxPendingRequests": 2, "maxRequests": 3, "maxRetries": 4},
    {"priority": "HIGH", "retryBudget": {"budgetPercent": {"value": 25}, "minRetryConcurrency": 5}}
  ]},
  "transportSocket": {"name": "envoy.transport_sockets.tls", "typedConfig": {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "sni": "payment.shop",
    "commonTlsContext": {
      "tlsCertificateProviderInstance": {"instanceName": "default", "certificateName": "default"},
      "combinedValidationContext": {"defaultValidationContext": {
        "caCertificateProviderInstance": {"instanceName": "default", "certificateName": "ROOTCA"},
        "matchSubjectAltNames": [{"exact": "spiffe://cluster.local/ns/shop/sa/payment"}, {"safeRegex": {"regex": "spiffe://.*"}}]
      }},
      "alpnProtocols": ["h2"]
    }}},
  "transportSocketMatches": [
    {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transportSocket": {"name": "tls", "typedConfig": {
      "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
      "commonTlsContext": {"validationContext": {"caCertificateProviderInstance": {"instanceName": "istio"}}}}}},
    {"name": "tlsMode-disabled", "transportSocket": {"name": "raw", "typedConfig": {
      "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}],
  "typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "commonHttpProtocolOptions": {"idleTimeout": "60s", "maxConnectionDuration": "3600s", "maxRequestsPerConnection": 100},
    "upstreamHttpProtocolOptions": {},
    "explicitHttpConfig": {"http2ProtocolOptions": {"initialStreamWindowSize": 65536, "maxConcurrentStreams": 50,
      "connectionKeepalive": {"interval": "30s", "timeout": "5s", "intervalJitter": {"value": 20}, "connectionIdleInterval": "60s"}}}}},
  "metadata": {"filterMetadata": {
    "inboard.breaker": {"failureRatio": 0.25, "minimumRequests": 10, "window": "20s", "openTime": "1s", "halfOpenProbes": 2},
    "inboard.retry_throttle": {"maxTokens": 10, "tokenRatio": 0.1},
    "istio": {"config": "anything"}
  }},
  "outlierDetection": {"interval": "1s", "baseEjectionTime": "2s", "maxEjectionTime": "3s", "maxEjectionTimeJitter": "4s",
    "maxEjectionPercent": 5, "alwaysEjectOneHost": true, "splitExternalLocalOriginErrors": true,
    "successfulActiveHealthCheckUnejectHost": false, "detectDegradedHosts": false,
    "consecutive5xx": 6, "enforcingConsecutive5xx": 7,
    "consecutiveGatewayFailure": 8, "enforcingConsecutiveGatewayFailure": 9,
    "consecutiveLocalOriginFailure": 10, "enforcingConsecutiveLocalOriginFailure": 11,
    "successRateMinimumHosts": 12, "successRateRequestVolume": 13, "successRateStdevFactor": 14,
    "enforcingSuccessRate": 15, "enforcingLocalOriginSuccessRate": 16,
    "failurePercentageThreshold": 17, "failurePercentageMinimumHosts": 18, "failurePercentageRequestVolume": 19,
    "enforcingFailurePercentage": 20, "enforcingFailurePercentageLocalOrigin": 21}
}`

const staticClusterFixture = `{
  "name": "static",
  "type": "STATIC",
  "loadAssignment": {"clusterName": "static", "endpoints": [{"lbEndpoints": [{"endpoint": {"address":
    {"socketAddress": {"address": "127.0.0.1", "portValue": 80}}}}]}]},
  "roundRobinLbConfig": {},
  "transportSocket": {"name": "tls", "typedConfig": {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "commonTlsContext": {"validationContextCertificateProviderInstance": {"instanceName": "old"}}}},
  "typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "useDownstreamProtocolConfig": {"httpProtocolOptions": {}, "http2ProtocolOptions": {"maxConcurrentStreams": 10}}}}
}`

// namedClusterFixture is as istiod writes a ServiceEntry of resolution DNS.
const namedClusterFixture = `{
  "name": "named",
  "type": "STRICT_DNS",
  "dnsRefreshRate": "60s", "dnsJitter": "0.1s", "respectDnsTtl": true, "dnsLookupFamily": "V4_ONLY",
  "dnsFailureRefreshRate": {"baseInterval": "2s", "maxInterval": "10s"},
  "typedDnsResolverConfig": {"name": "envoy.network.dns_resolver.cares", "typedConfig": {
    "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "udpMaxQueries": 100}},
  "loadAssignment": {"clusterName": "named", "endpoints": [{"lbEndpoints": [{"endpoint": {"address":
    {"socketAddress": {"address": "api.example", "portValue": 443}}}}]}]}
}`

// logicalClusterFixture asks by the system's resolver.
const logicalClusterFixture = `{
  "name": "logical",
  "type": "LOGICAL_DNS",
  "typedDnsResolverConfig": {"name": "envoy.network.dns_resolver.getaddrinfo", "typedConfig": {
    "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig"}},
  "loadAssignment": {"clusterName": "logical", "endpoints": [{"lbEndpoints": [{"endpoint": {"address":
    {"socketAddress": {"address": "api.example", "portValue": 443}}}}]}]}
}`

// outsideClusterFixture is TLS to a server outside the mesh.
const outsideClusterFixture = `{
  "name": "outside",
  "type": "EDS",
  "edsClusterConfig": {"edsConfig": {"ads": {}}},
  "transportSocket": {"name": "tls", "typedConfig": {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "sni": "api.example", "autoSniSanValidation": false,
    "commonTlsContext": {
      "tlsParams": {"tlsMinimumProtocolVersion": "TLSv1_2", "tlsMaximumProtocolVersion": "TLSv1_3",
        "cipherSuites": ["[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]", "AES128-GCM-SHA256"], "ecdhCurves": ["X25519"]},
      "tlsCertificateSdsSecretConfigs": [{"name": "own"}],
      "validationContext": {"systemRootCerts": {},
        "verifyCertificateSpki": ["NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A="],
        "verifyCertificateHash": ["DF:6F:F7:2F:E9:11:65:21:26:8F:6F:2D:D4:96:6F:51:DF:47:98:83:FE:70:37:B3:9F:75:91:6A:C3:04:9D:1A"],
        "matchTypedSubjectAltNames": [
          {"sanType": "DNS", "matcher": {"exact": "api.example"}},
          {"sanType": "EMAIL", "matcher": {"suffix": "@example"}},
          {"sanType": "IP_ADDRESS", "matcher": {"exact": "10.0.0.1"}},
          {"sanType": "OTHER_NAME", "oid": "1.3.6.1.4.1.311.20.2.3", "matcher": {"exact": "ada@example"}}]}}}}
}`

// istiodClusterFixture is what istiod sends to sidecars.
const istiodClusterFixture = `{
  "name": "istiod",
  "type": "EDS",
  "edsClusterConfig": {"edsConfig": {"ads": {}}},
  "transportSocket": {"name": "tls", "typedConfig": {
    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "commonTlsContext": {
      "alpnProtocols": ["istio-peer-exchange", "istio"],
      "tlsCertificateSdsSecretConfigs": [{"name": "default", "sdsConfig": {"ads": {}}}],
      "combinedValidationContext": {
        "defaultValidationContext": {"matchSubjectAltNames": [{"exact": "spiffe://cluster.local/ns/shop/sa/payment"}]},
        "validationContextSdsSecretConfig": {"name": "ROOTCA"}}}}}
}`

const wrrLocalityClusterFixture = `{
  "name": "wrr",
  "type": "EDS",
  "edsClusterConfig": {"edsConfig": {"self": {}}},
  "lbPolicy": "LOAD_BALANCING_POLICY_CONFIG",
  "loadBalancingPolicy": {"policies": [
    {"typedExtensionConfig": {"name": "new", "typedConfig": {"@type": "type.googleapis.com/envoy.config.core.v3.Locality"}}},
    {"typedExtensionConfig": {"name": "wrr", "typedConfig": {
      "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality",
      "endpointPickingPolicy": {"policies": [{"typedExtensionConfig": {"name": "lr", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
        "choiceCount": 4, "activeRequestBias": {"defaultValue": 2, "runtimeKey": "k"}, "localityLbConfig": {"localityWeightedLbConfig": {}}}}}]}}}}
  ]},
  "typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "autoConfig": {"httpProtocolOptions": {}, "http2ProtocolOptions": {"maxConcurrentStreams": 10}}}}
}`

const randomClusterFixture = `{
  "name": "random",
  "type": "EDS",
  "edsClusterConfig": {"edsConfig": {"ads": {}}},
  "loadBalancingPolicy": {"policies": [{"typedExtensionConfig": {"name": "random", "typedConfig": {
    "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random",
    "localityLbConfig": {"localityWeightedLbConfig": {}}}}}]},
  "outlierDetection": {"enforcingConsecutive5xx": 0, "enforcingSuccessRate": 0, "splitExternalLocalOriginErrors": true,
    "enforcingConsecutiveLocalOriginFailure": 0, "enforcingLocalOriginSuccessRate": 0},
  "typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "explicitHttpConfig": {"httpProtocolOptions": {}}}}
}`

const roundRobinClusterFixture = `{
  "name": "round-robin",
  "type": "EDS",
  "edsClusterConfig": {"edsConfig": {"ads": {}}},
  "loadBalancingPolicy": {"policies": [{"typedExtensionConfig": {"name": "rr", "typedConfig": {
    "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
    "localityLbConfig": {"localityWeightedLbConfig": {}}}}}]}
}`

const assignmentFixture = `{
  "clusterName": "payment-endpoints",
  "policy": {
    "overprovisioningFactor": 200,
    "dropOverloads": [{"category": "lb", "dropPercentage": {"numerator": 20}}, {"category": "throttle", "dropPercentage": {"numerator": 1000, "denominator": "TEN_THOUSAND"}}]
  },
  "endpoints": [
    {
      "locality": {"region": "r", "zone": "z", "subZone": "s"}, "loadBalancingWeight": 3,
      "lbEndpoints": [
        {"endpoint": {"hostname": "a.shop", "address": {"socketAddress": {"address": "10.0.0.1", "portValue": 80}}},
         "healthStatus": "HEALTHY", "loadBalancingWeight": 2,
         "metadata": {"filterMetadata": {"istio": {"workload": "payment;shop", "n": 1}}}},
        {"endpoint": {"address": {"socketAddress": {"address": "fd00::1", "portValue": 81}}, "additionalAddresses": [
          {"address": {"socketAddress": {"address": "10.0.0.3", "portValue": 81}}}, {"address": {"socketAddress": {"address": "10.0.0.4", "portValue": 81}}}]},
         "healthStatus": "DRAINING"}
      ]
    },
    {"locality": {"region": "r2"}, "priority": 1, "loadBalancingWeight": 1,
     "lbEndpoints": [{"endpoint": {"address": {"socketAddress": {"address": "10.0.0.2", "portValue": 80}}}}]}
  ]
}`
