CREATE FUNCTION accounting.add_currency_table(c text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE accounting.%I (day date PRIMARY KEY, rate numeric NOT NULL)', 'rate_' || lower(c));
    EXECUTE format('INSERT INTO accounting.%I SELECT day, rate FROM accounting.exchange_rate WHERE quote = %L', 'rate_' || lower(c), c);
    EXECUTE format('COMMENT ON TABLE accounting.%I IS %L', 'rate_' || lower(c), 'Rates of ' || c || '; daily');
END
$$;
SELECT accounting.add_currency_table(code) FROM accounting.currency WHERE code <> 'EUR' ORDER BY code;
