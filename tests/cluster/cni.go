//go:build tools

// Package testcluster names programs of others, so that go.mod pins what build.sh builds.
package testcluster

import (
	_ "github.com/containernetworking/plugins/plugins/ipam/host-local"
	_ "github.com/containernetworking/plugins/plugins/main/loopback"
	_ "github.com/containernetworking/plugins/plugins/main/ptp"
)
