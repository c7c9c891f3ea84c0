import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.*;
import java.util.*;
import org.postgresql.PGConnection;

/** Uses pgjdbc in its usual ways. Prints "ok NAME" for every check that holds, "failed NAME: why" for others. */
public class JdbcClient {
    interface Check {
        void run(Connection connection) throws Exception;
    }

    static String url;
    static Properties properties = new Properties();

    static void same(Object found, Object expected) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError("found " + found + ", expected " + expected);
        }
    }

    static Connection connect() throws SQLException {
        return DriverManager.getConnection(url, properties);
    }

    static void check(String name, Check body) {
        try (Connection connection = connect()) {
            body.run(connection);
            System.out.println("ok " + name);
        } catch (Throwable problem) {
            System.out.println("failed " + name + ": " + problem.toString().replace('\n', ' '));
        }
    }

    static long count(Connection connection, String query) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(query)) {
            rows.next();
            return rows.getLong(1);
        }
    }

    static String stateOf(Check body, Connection connection) throws Exception {
        try {
            body.run(connection);
        } catch (SQLException refused) {
            return refused.getSQLState();
        }
        return null;
    }

    static void update(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate(sql);
        }
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> environment = System.getenv();
        url = environment.get("JDBC_URL");
        properties.setProperty("user", "admin");
        properties.setProperty("password", environment.get("PGPASSWORD"));
        try (Connection connection = connect()) {
            update(connection, "CREATE TABLE jdbc (id int PRIMARY KEY, v text, n numeric(12,3), at timestamptz, u uuid)");
        }

        check("connection", c -> {
            DatabaseMetaData about = c.getMetaData();
            same(about.getDatabaseProductName(), "PostgreSQL");
            same(about.getDatabaseProductVersion(), "16.15");
            same(about.getUserName(), "admin");
            same(c.getCatalog(), "postgres");
            same(c.getSchema(), "public");
            same(c.isValid(5), true);
        });

        check("values", c -> {
            UUID key = UUID.randomUUID();
            Timestamp at = Timestamp.from(java.time.Instant.parse("2026-02-03T04:05:06.789Z"));
            try (PreparedStatement insert = c.prepareStatement("INSERT INTO jdbc VALUES (?, ?, ?, ?, ?)")) {
                insert.setInt(1, 1);
                insert.setString(2, "it's \\ é 😀");
                insert.setBigDecimal(3, new BigDecimal("-1234.567"));
                insert.setTimestamp(4, at);
                insert.setObject(5, key);
                same(insert.executeUpdate(), 1);
            }
            String query = "SELECT * FROM jdbc WHERE id = ? AND v = ? AND n = ? AND at = ? AND u = ?";
            try (PreparedStatement select = c.prepareStatement(query)) {
                for (int round = 0; round < 12; round++) { // text at first, then named statements and binary values
                    select.setInt(1, 1);
                    select.setString(2, "it's \\ é 😀");
                    select.setBigDecimal(3, new BigDecimal("-1234.567"));
                    select.setTimestamp(4, at);
                    select.setObject(5, key);
                    try (ResultSet rows = select.executeQuery()) {
                        same(rows.next(), true);
                        same(rows.getBigDecimal(3), new BigDecimal("-1234.567"));
                        same(rows.getTimestamp(4), at);
                        same(rows.getObject(5), key);
                        same(rows.next(), false);
                    }
                }
            }
        });

        check("transactions", c -> {
            c.setAutoCommit(false);
            update(c, "INSERT INTO jdbc (id) VALUES (10)");
            c.commit();
            update(c, "INSERT INTO jdbc (id) VALUES (11)");
            c.rollback();
            same(count(c, "SELECT count(*) FROM jdbc WHERE id IN (10, 11)"), 1L);
            same(stateOf(x -> update(x, "INSERT INTO jdbc (id) VALUES (10)"), c), "23505");
            same(stateOf(x -> update(x, "INSERT INTO jdbc (id) VALUES (12)"), c), "25P02");
            c.rollback();
            same(stateOf(x -> x.setSavepoint(), c), "0A000");
            c.rollback();
            c.setReadOnly(true);
            same(stateOf(x -> update(x, "DELETE FROM jdbc"), c), "25006");
            c.rollback();
        });

        check("conflict", c -> {
            update(c, "INSERT INTO jdbc (id) VALUES (20)");
            c.setAutoCommit(false);
            update(c, "UPDATE jdbc SET v = 'mine' WHERE id = 20");
            try (Connection other = connect()) {
                update(other, "UPDATE jdbc SET v = 'theirs' WHERE id = 20");
            }
            same(stateOf(x -> x.commit(), c), "40001");
        });

        check("fetch size", c -> {
            c.setAutoCommit(false);
            update(c, "INSERT INTO jdbc (id) SELECT g FROM generate_series(1001, 1100) g");
            try (PreparedStatement select = c.prepareStatement("SELECT id FROM jdbc WHERE id > ? ORDER BY id")) {
                select.setFetchSize(7);
                select.setInt(1, 1000);
                int seen = 0;
                try (ResultSet rows = select.executeQuery()) {
                    while (rows.next()) {
                        same(rows.getInt(1), 1001 + seen++);
                        if (seen == 10) { // another statement while the portal is open
                            same(count(c, "SELECT count(*) FROM jdbc WHERE id > 1000"), 100L);
                            update(c, "DELETE FROM jdbc WHERE id = 1100");
                        }
                    }
                }
                same(seen, 100);
            }
            c.commit();
        });

        check("batches", c -> {
            c.setAutoCommit(false);
            try (PreparedStatement insert = c.prepareStatement("INSERT INTO jdbc (id, v) VALUES (?, ?)")) {
                for (int n = 2000; n < 2500; n++) {
                    insert.setInt(1, n);
                    insert.setString(2, "batch");
                    insert.addBatch();
                }
                same(insert.executeBatch().length, 500);
            }
            c.commit();
            same(count(c, "SELECT count(*) FROM jdbc WHERE v = 'batch'"), 500L);
            try (PreparedStatement insert = c.prepareStatement("INSERT INTO jdbc (id) VALUES (?)")) {
                for (int n : new int[] {3000, 2000, 3001}) {
                    insert.setInt(1, n);
                    insert.addBatch();
                }
                same(stateOf(x -> insert.executeBatch(), c), "23505");
            }
            c.rollback();
            same(count(c, "SELECT count(*) FROM jdbc WHERE id >= 3000"), 0L);
        });

        check("generated keys", c -> {
            update(c, "CREATE TABLE jdbc_keys (id bigint GENERATED BY DEFAULT AS IDENTITY (CACHE 1) PRIMARY KEY, v text)");
            String sql = "INSERT INTO jdbc_keys (v) VALUES ('a'), ('b')";
            try (Statement insert = c.createStatement()) {
                insert.executeUpdate(sql, Statement.RETURN_GENERATED_KEYS);
                try (ResultSet keys = insert.getGeneratedKeys()) {
                    same(keys.next(), true);
                    same(keys.getLong("id"), 1L);
                    same(keys.next(), true);
                }
            }
        });

        check("catalog", c -> {
            DatabaseMetaData about = c.getMetaData();
            List<String> tables = new ArrayList<>();
            try (ResultSet rows = about.getTables(null, "public", "jdbc%", new String[] {"TABLE"})) {
                while (rows.next()) tables.add(rows.getString("TABLE_NAME"));
            }
            same(tables, List.of("jdbc", "jdbc_keys"));
            Map<String, String> columns = new LinkedHashMap<>();
            try (ResultSet rows = about.getColumns(null, "public", "jdbc", null)) {
                while (rows.next()) columns.put(rows.getString("COLUMN_NAME"), rows.getString("TYPE_NAME"));
            }
            same(columns.toString(), "{id=int4, v=text, n=numeric, at=timestamptz, u=uuid}");
            try (ResultSet rows = about.getPrimaryKeys(null, "public", "jdbc")) {
                same(rows.next(), true);
                same(rows.getString("COLUMN_NAME"), "id");
            }
            List<String> catalogs = new ArrayList<>();
            try (ResultSet rows = about.getCatalogs()) {
                while (rows.next()) catalogs.add(rows.getString(1));
            }
            same(catalogs, List.of("postgres"));
        });

        check("arrays", c -> {
            try (PreparedStatement select = c.prepareStatement("SELECT count(*) FROM jdbc WHERE id = ANY(?)")) {
                select.setArray(1, c.createArrayOf("int4", new Object[] {2000, 2001, -1}));
                try (ResultSet rows = select.executeQuery()) {
                    rows.next();
                    same(rows.getLong(1), 2L);
                }
            }
        });

        check("copy", c -> {
            var copy = c.unwrap(PGConnection.class).getCopyAPI();
            same(copy.copyIn("COPY jdbc (id, v) FROM STDIN (FORMAT csv)", new StringReader("4000,x\n4001,\n")), 2L);
            StringWriter out = new StringWriter();
            copy.copyOut("COPY (SELECT id, v FROM jdbc WHERE id >= 4000 ORDER BY id) TO STDOUT (FORMAT csv)", out);
            same(out.toString(), "4000,x\n4001,\n");
            same(stateOf(x -> copy.copyIn("COPY jdbc (id) FROM STDIN", new StringReader("nonsense\n")), c), "22P02");
            same(c.isValid(5), true);
        });

        check("many results", c -> {
            try (Statement statement = c.createStatement()) {
                same(statement.execute("SELECT 1; UPDATE jdbc SET v = 'z' WHERE id = 1; SELECT 2"), true);
                same(statement.getMoreResults(), false);
                same(statement.getUpdateCount(), 1);
                same(statement.getMoreResults(), true);
            }
        });

        check("refusals", c -> {
            same(stateOf(x -> update(x, "TRUNCATE jdbc"), c), "0A000");
            same(stateOf(x -> update(x, "SELECT nope"), c), "42703");
            same(stateOf(x -> DriverManager.getConnection(url, "admin", "guess"), c), "08006");
        });

        for (String name : new String[] {"jdbc", "jdbc_keys"}) {
            try (Connection connection = connect()) {
                update(connection, "DROP TABLE " + name);
            }
        }
    }
}
