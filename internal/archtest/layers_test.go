package archtest

// layer is how high a package stands. It imports strictly lower layers only, so
// packages of one layer, the engines above all, never know each other.
type layer int

// The layers, from the ground up.
const (
	ground   layer = iota // words that everything uses
	pure                  // no I/O of their own beyond files, no clock, no goroutine
	derived               // pure, on top of pure ones
	faces                 // what people and programs see: they know only the API
	commands              // the command line, on top of the client
	services              // sessions to PostgreSQL, peers, servers
	stores                // what lies in a linked database
	engines               // each does one thing to databases
	whole                 // what several engines do together
	links                 // where engines meet
	agents                // the process
	programs              // what main starts
	mains
)

// place is a package's entry in the table.
type place struct {
	layer layer
	pgx   bool // may import PostgreSQL's driver
	tests bool // only tests, and other packages for tests, import it
}

// places lists every package of the module, below its root. A package that is
// planned but does not exist yet has its place here already.
var places = map[string]place{
	"api":              {layer: ground},
	"internal/lsn":     {layer: ground},
	"internal/sqlname": {layer: ground},
	"internal/problem": {layer: ground},

	"client":             {layer: pure},
	"internal/pgoutput":  {layer: pure},
	"internal/wire":      {layer: pure},
	"internal/role":      {layer: pure},
	"internal/ddl":       {layer: pure},
	"internal/rowtext":   {layer: pure},
	"internal/config":    {layer: pure},
	"internal/telemetry": {layer: pure},
	"internal/terminal":  {layer: pure},
	"internal/audit":     {layer: pure},
	"internal/turns":     {layer: pure},
	"internal/lag":       {layer: pure},
	"internal/door":      {layer: pure},
	"internal/events":    {layer: pure},

	"internal/group":  {layer: derived},
	"internal/access": {layer: derived},

	"internal/httpapi": {layer: faces},
	"internal/web":     {layer: faces},
	"internal/cli":     {layer: commands},

	"internal/hooks":    {layer: services},
	"internal/pg":       {layer: services, pgx: true},
	"internal/peer":     {layer: services},
	"internal/instance": {layer: services, pgx: true},
	"internal/backup":   {layer: stores, pgx: true},
	"internal/usage":    {layer: stores},
	"internal/rights":   {layer: stores, pgx: true},
	"internal/catalog":  {layer: stores, pgx: true},

	"internal/lease":       {layer: engines, pgx: true},
	"internal/capture":     {layer: engines, pgx: true},
	"internal/seed":        {layer: engines, pgx: true},
	"internal/apply":       {layer: engines, pgx: true},
	"internal/schema":      {layer: engines, pgx: true},
	"internal/sequence":    {layer: engines, pgx: true},
	"internal/largeobject": {layer: engines, pgx: true},
	"internal/lost":        {layer: engines, pgx: true},
	"internal/reorder":     {layer: engines},
	"internal/gate":        {layer: engines, pgx: true},
	"internal/syncrep":     {layer: engines, pgx: true},
	"internal/verify":      {layer: engines, pgx: true},
	"internal/assess":      {layer: engines, pgx: true},
	"internal/pgbackrest":  {layer: engines},

	"internal/dbcopy":  {layer: whole, pgx: true},
	"internal/restore": {layer: whole, pgx: true},
	"internal/flow":    {layer: whole},

	"internal/link":  {layer: links, pgx: true},
	"internal/agent": {layer: agents},
	"internal/setup": {layer: agents},
	"internal/demo":  {layer: programs, pgx: true},
	"cmd/twinspan":   {layer: mains},

	"internal/archtest":          {tests: true, layer: mains},
	"internal/pgtest":            {tests: true, layer: stores, pgx: true},
	"internal/httpapi/agenttest": {tests: true, layer: mains},
	"internal/linktest":          {tests: true, layer: mains, pgx: true},
	"internal/walk":              {tests: true, layer: pure},
	"internal/attack":            {tests: true, layer: pure},
}

// emptyNames say nothing about what a package is for.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "base", "shared", "lib"}

// mostLines a file may have, tests and generated files aside.
const mostLines = 600
