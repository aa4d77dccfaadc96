package main

import (
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// serviceVariable matches what Kubernetes sets in every container for a Service whose name begins with dormouse.
var serviceVariable = regexp.MustCompile(
	`_SERVICE_(HOST|PORT(_\w+)?)$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$`)

// checkVariables refuses an environment variable that is nearly the name of a flag: a misspelt setting must not be
// ignored. What is nothing like a flag may be somebody else's, see strayVariables.
func checkVariables(root *cobra.Command, environ []string) error {
	flags := flagNames(root)
	for _, name := range strayVariables(root, environ) {
		if near := nearest(strings.TrimPrefix(name, envPrefix+"_"), flags); near != "" {
			return usageErrorf("the environment variable %s is no setting: is %s meant?", name, near)
		}
	}
	return nil
}

// strayVariables returns the environment variables, sorted, that have a value and dormouse's prefix, and are no flag.
func strayVariables(root *cobra.Command, environ []string) (stray []string) {
	flags := flagNames(root)
	for _, pair := range environ {
		variable, value, _ := strings.Cut(pair, "=")
		name, ours := strings.CutPrefix(variable, envPrefix+"_")
		if !ours || value == "" || serviceVariable.MatchString(variable) {
			continue
		}
		if flag := strings.ToLower(strings.ReplaceAll(name, "_", "-")); !flags[flag] || variable != variableOf(flag) {
			stray = append(stray, variable)
		}
	}
	slices.Sort(stray)
	return stray
}

// variableOf is the environment variable of a flag.
func variableOf(flag string) string {
	return envPrefix + "_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// nearest returns the variable of the flag to which name, which has no prefix, can be mended: by one change of a
// letter, or two in a name of some length. "" is none.
func nearest(name string, flags map[string]bool) (variable string) {
	least := 2
	if len(name) > 5 {
		least = 3
	}
	for flag := range flags {
		wanted := variableOf(flag)
		if n := changes(strings.ToUpper(name), strings.TrimPrefix(wanted, envPrefix+"_")); n < least || n == least &&
			variable != "" && wanted < variable {
			variable, least = wanted, n
		}
	}
	return variable
}

// changes returns how many letters have to be added, dropped or replaced to make b of a.
func changes(a, b string) int {
	row := make([]int, len(b)+1) // of a[:i], for each end of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
