package bucket

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/s3blob" // the driver of s3://; clouds.go has the others
)

// defaultRegion is the S3 region when neither the URL nor the environment names one. S3-compatible servers mostly
// ignore it, but requests cannot be signed without.
const defaultRegion = "us-east-1"

// parameters are what the bucket library's openers take in a URL (gocloud.dev v0.47.0), by scheme. Those that are true
// say where the bucket is or how it is reached, and are passed on to readers; the others say who asks, which is
// everybody's own matter, and may be secret.
var parameters = map[string]map[string]bool{
	"s3": {
		"region": true, "endpoint": true, "use_path_style": true, "s3ForcePathStyle": true, "hostname_immutable": true,
		"disable_https": true, "dualstack": true, "fips": true, "accelerate": true,
		"request_checksum_calculation": true, "response_checksum_validation": true,
		"ssetype": false, "kmskeyid": false, "profile": false, "role": false, "anonymous": false,
		"rate_limiter_capacity": false,
	},
	"gs": {
		"universe_domain": true, "grpc": true, "zonal": true,
		"access_id": false, "private_key_path": false, "anonymous": false,
	},
	"azblob": {"storage_account": true, "domain": true, "protocol": true, "cdn": true, "localemu": true},
}

// azureVariables name the environment's part of where an Azure container is, by the parameters that overrule them.
var azureVariables = map[string]string{
	"storage_account": "AZURE_STORAGE_ACCOUNT", "domain": "AZURE_STORAGE_DOMAIN", "protocol": "AZURE_STORAGE_PROTOCOL",
	"cdn": "AZURE_STORAGE_IS_CDN", "localemu": "AZURE_STORAGE_IS_LOCAL_EMULATOR",
}

// parseParameters refuses what would be ignored: a misspelt endpoint would be another place. Its errors quote no
// values.
func parseParameters(scheme, raw string) (url.Values, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: its parameters do not parse: write name=value, with & between them", ErrURL)
	}
	known := parameters[scheme]
	for name, values := range query {
		_, ok := known[name]
		switch {
		case (name == "prefix" || name == "key") && !ok:
			return nil, fmt.Errorf("%w: the prefix belongs into the path: %s://bucket/prefix", ErrURL, scheme)
		case !ok:
			return nil, fmt.Errorf("%w: parameter %q is not known: %s:// takes %s", ErrURL, name, scheme,
				strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case len(values) != 1 || values[0] == "":
			return nil, fmt.Errorf("%w: parameter %q must have one value, and not an empty one", ErrURL, name)
		}
	}
	if endpoint := query.Get("endpoint"); endpoint != "" {
		u, err := url.Parse(endpoint)
		web := err == nil && (u.Scheme == "http" || u.Scheme == "https")
		if !web || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("%w: the endpoint must be like http://host:port", ErrURL)
		}
	}
	if scheme == "azblob" {
		for name, variable := range azureVariables {
			if value := os.Getenv(variable); value != "" {
				setDefault(query, name, value)
			}
		}
	}
	return query, nil
}

// public returns the URL without the parameters that may hold secrets: only where the bucket is stays.
func (p place) public() string {
	switch p.scheme {
	case "mem":
		return "mem://"
	case "file":
		return (&url.URL{Scheme: "file", Path: filepath.ToSlash(p.folder)}).String()
	}
	u := url.URL{Scheme: p.scheme, Host: p.bucket}
	if p.prefix != "" {
		u.Path = "/" + p.prefix
	}
	shown := url.Values{}
	for name, show := range parameters[p.scheme] {
		if v := p.query.Get(name); v != "" && show {
			shown.Set(name, withoutUser(v))
		}
	}
	u.RawQuery = shown.Encode()
	return u.String()
}

// withoutUser drops credentials from an endpoint.
func withoutUser(value string) string {
	u, err := url.Parse(value)
	if err != nil || u.User == nil {
		return value
	}
	u.User = nil
	return u.String()
}

// driverURL is what the bucket library opens for schemes other than file and mem. With an endpoint of their own,
// S3-compatible servers are addressed in path style unless the URL says otherwise, and asked for no checksums that only
// the original computes.
func (p place) driverURL() string {
	query := maps.Clone(p.query)
	if p.scheme == "s3" {
		if query.Get("region") == "" && os.Getenv("AWS_REGION") == "" && os.Getenv("AWS_DEFAULT_REGION") == "" {
			query.Set("region", defaultRegion)
		}
		if query.Get("endpoint") != "" {
			if !query.Has("s3ForcePathStyle") {
				setDefault(query, "use_path_style", "true")
			}
			// With a host that must not change the bucket is always in the path.
			inPath, err := strconv.ParseBool(query.Get("use_path_style") + query.Get("s3ForcePathStyle"))
			setDefault(query, "hostname_immutable", strconv.FormatBool(inPath || err != nil))
			setDefault(query, "request_checksum_calculation", "when_required")
			setDefault(query, "response_checksum_validation", "when_required")
		}
	}
	return (&url.URL{Scheme: p.scheme, Host: p.bucket, RawQuery: query.Encode()}).String()
}

func setDefault(query url.Values, name, value string) {
	if !query.Has(name) {
		query.Set(name, value)
	}
}

// asOpened returns p with what the environment and the files of the AWS SDK add to the place of an S3 bucket.
func (p place) asOpened(b *blob.Bucket) place {
	var client *s3.Client
	if p.scheme != "s3" || !b.As(&client) {
		return p
	}
	options := client.Options()
	quieten(client, options)
	p.query = maps.Clone(p.query)
	if options.Region != "" {
		p.query.Set("region", options.Region)
	}
	if options.BaseEndpoint != nil && !p.query.Has("endpoint") {
		p.query.Set("endpoint", *options.BaseEndpoint)
		p.query.Set("use_path_style", strconv.FormatBool(options.UsePathStyle || isAddress(*options.BaseEndpoint)))
		p.query.Del("s3ForcePathStyle")
	}
	if options.EndpointOptions.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled {
		p.query.Set("dualstack", "true")
	}
	if options.EndpointOptions.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled {
		p.query.Set("fips", "true")
	}
	return p
}

// quieten keeps the SDK from writing to standard error by itself, for which the bucket library has no parameter; what
// matters is in the errors. A server that is named by the environment is asked for checksums like one that the URL
// names, see driverURL.
func quieten(client *s3.Client, options s3.Options) {
	options.Logger = nil
	if options.BaseEndpoint != nil {
		options.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		options.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	}
	*client = *s3.New(options)
}

// isAddress reports whether an endpoint's host is an IP address, before which the SDK puts no bucket's name.
func isAddress(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && net.ParseIP(u.Hostname()) != nil
}
