-- A web shop with warehouse and accounting, as it was at version 1.0.
CREATE EXTENSION pg_trgm;
CREATE EXTENSION unaccent;
CREATE EXTENSION btree_gist;

CREATE SCHEMA catalog AUTHORIZATION shop_owner;
CREATE SCHEMA crm AUTHORIZATION shop_owner;
CREATE SCHEMA sales AUTHORIZATION shop_owner;
CREATE SCHEMA warehouse AUTHORIZATION shop_owner;
CREATE SCHEMA accounting AUTHORIZATION shop_owner;
CREATE SCHEMA audit AUTHORIZATION shop_owner;
COMMENT ON SCHEMA accounting IS 'Double entry; what is posted is never changed';
GRANT USAGE ON SCHEMA catalog, crm, sales, warehouse TO shop_app, shop_readonly;
GRANT USAGE ON SCHEMA accounting, audit TO shop_accounting, shop_app;

ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA catalog, crm, sales, warehouse GRANT SELECT ON TABLES TO shop_readonly;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA catalog, crm, sales, warehouse GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO shop_app;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA catalog, crm, sales, warehouse, accounting GRANT USAGE ON SEQUENCES TO shop_app;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA accounting GRANT SELECT ON TABLES TO shop_accounting;

SET ROLE shop_owner;

-- Accounting's reference data come first, everything else counts in currencies.
CREATE TABLE accounting.currency (
    code char(3) PRIMARY KEY CHECK (code = upper(code)),
    name text NOT NULL,
    minor_digits smallint NOT NULL DEFAULT 2
);
CREATE TABLE accounting.exchange_rate (
    base char(3) NOT NULL REFERENCES accounting.currency,
    quote char(3) NOT NULL REFERENCES accounting.currency,
    day date NOT NULL,
    rate numeric(18,8) NOT NULL CHECK (rate > 0),
    PRIMARY KEY (base, quote, day)
);
INSERT INTO accounting.currency VALUES ('EUR', 'Euro', 2), ('USD', 'US dollar', 2), ('JPY', 'Yen', 0), ('GBP', 'Pound sterling', 2);
INSERT INTO accounting.exchange_rate SELECT 'EUR', q, '2024-01-01'::date + d, 1 + d / 1000.0 FROM unnest(ARRAY['USD', 'GBP', 'JPY']) q, generate_series(0, 29) d;

-- Catalog.
CREATE TYPE catalog.product_state AS ENUM ('draft', 'active', 'retired');
CREATE DOMAIN catalog.sku AS varchar(40) CHECK (VALUE ~ '^[A-Z0-9-]+$');
CREATE COLLATION catalog.german (provider = icu, locale = 'de-u-co-phonebk');

CREATE TABLE catalog.tax_class (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE catalog.tax_rate (
    id serial PRIMARY KEY,
    tax_class_id int NOT NULL REFERENCES catalog.tax_class ON DELETE CASCADE,
    country char(2) NOT NULL,
    percent numeric(5,2) NOT NULL CHECK (percent BETWEEN 0 AND 100),
    valid daterange NOT NULL DEFAULT '[2000-01-01,)',
    EXCLUDE USING gist (tax_class_id WITH =, country WITH =, valid WITH &&)
);
CREATE TABLE catalog.brand (id serial PRIMARY KEY, name text COLLATE catalog.german NOT NULL UNIQUE, website text);
CREATE TABLE catalog.category (
    id serial PRIMARY KEY,
    parent_id int REFERENCES catalog.category,
    slug text NOT NULL,
    name text NOT NULL,
    position int NOT NULL DEFAULT 0,
    UNIQUE (parent_id, slug)
);
CREATE TABLE catalog.product (
    id bigserial PRIMARY KEY,
    brand_id int REFERENCES catalog.brand ON DELETE SET NULL,
    tax_class_id int NOT NULL REFERENCES catalog.tax_class,
    sku catalog.sku NOT NULL,
    name text NOT NULL,
    description text,
    state catalog.product_state NOT NULL DEFAULT 'draft',
    net_price numeric(12,2) NOT NULL CHECK (net_price >= 0),
    gross_price numeric(12,2) GENERATED ALWAYS AS (round(net_price * 1.19, 2)) STORED,
    weight_grams int,
    rating_sum int NOT NULL DEFAULT 0,
    rating_count int NOT NULL DEFAULT 0,
    search tsvector GENERATED ALWAYS AS (setweight(to_tsvector('english', coalesce(name, '')), 'A') || setweight(to_tsvector('english', coalesce(description, '')), 'B')) STORED,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX product_sku_key ON catalog.product (sku);
CREATE INDEX product_search_idx ON catalog.product USING gin (search);
CREATE INDEX product_name_trgm_idx ON catalog.product USING gin (name gin_trgm_ops);
CREATE INDEX product_active_idx ON catalog.product (brand_id, net_price) WHERE state = 'active';
COMMENT ON COLUMN catalog.product.net_price IS 'Without tax, in the shop''s currency';
CREATE TABLE catalog.product_category (
    product_id bigint REFERENCES catalog.product ON DELETE CASCADE,
    category_id int REFERENCES catalog.category ON DELETE CASCADE,
    PRIMARY KEY (product_id, category_id)
);
CREATE TABLE catalog.product_variant (
    id bigserial PRIMARY KEY,
    product_id bigint NOT NULL REFERENCES catalog.product ON DELETE CASCADE,
    sku catalog.sku NOT NULL UNIQUE,
    surcharge numeric(10,2) NOT NULL DEFAULT 0,
    barcode text
);
CREATE TABLE catalog.attribute (id serial PRIMARY KEY, code text NOT NULL UNIQUE, label text NOT NULL);
CREATE TABLE catalog.attribute_value (id serial PRIMARY KEY, attribute_id int NOT NULL REFERENCES catalog.attribute, value text NOT NULL, UNIQUE (attribute_id, value));
CREATE TABLE catalog.variant_attribute (
    variant_id bigint REFERENCES catalog.product_variant ON DELETE CASCADE,
    attribute_value_id int REFERENCES catalog.attribute_value,
    PRIMARY KEY (variant_id, attribute_value_id)
);
CREATE TABLE catalog.product_image (
    id bigserial PRIMARY KEY,
    product_id bigint NOT NULL REFERENCES catalog.product ON DELETE CASCADE,
    position smallint NOT NULL,
    thumbnail bytea,
    url text NOT NULL,
    CONSTRAINT product_image_position_key UNIQUE (product_id, position) DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE catalog.price_list (id serial PRIMARY KEY, name text NOT NULL, currency char(3) NOT NULL REFERENCES accounting.currency);
CREATE TABLE catalog.price (
    id bigserial PRIMARY KEY,
    price_list_id int NOT NULL REFERENCES catalog.price_list,
    variant_id bigint NOT NULL REFERENCES catalog.product_variant ON DELETE CASCADE,
    valid daterange NOT NULL,
    amount numeric(12,2) NOT NULL,
    CONSTRAINT price_valid_excl EXCLUDE USING gist (price_list_id WITH =, variant_id WITH =, valid WITH &&)
);
CREATE TABLE catalog.review (
    id bigserial PRIMARY KEY,
    product_id bigint NOT NULL REFERENCES catalog.product ON DELETE CASCADE,
    stars int NOT NULL CHECK (stars BETWEEN 1 AND 5),
    body text,
    written_at timestamp NOT NULL DEFAULT now()
);
CREATE TABLE catalog.product_translation (
    product_id bigint REFERENCES catalog.product ON DELETE CASCADE,
    locale varchar(5),
    name text NOT NULL,
    PRIMARY KEY (product_id, locale)
);
CREATE TABLE catalog.related_product (a bigint REFERENCES catalog.product ON DELETE CASCADE, b bigint REFERENCES catalog.product ON DELETE CASCADE, PRIMARY KEY (a, b), CHECK (a <> b));
CREATE TABLE catalog.tag (id serial PRIMARY KEY, name varchar(50) NOT NULL UNIQUE);
CREATE TABLE catalog.product_tag (product_id bigint REFERENCES catalog.product ON DELETE CASCADE, tag_id int REFERENCES catalog.tag ON DELETE CASCADE, PRIMARY KEY (product_id, tag_id));

CREATE FUNCTION catalog.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END
$$;
CREATE TRIGGER touch BEFORE UPDATE ON catalog.product FOR EACH ROW EXECUTE FUNCTION catalog.touch();
CREATE FUNCTION catalog.count_review() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        UPDATE catalog.product SET rating_sum = rating_sum - OLD.stars, rating_count = rating_count - 1 WHERE id = OLD.product_id;
    END IF;
    IF TG_OP IN ('UPDATE', 'INSERT') THEN
        UPDATE catalog.product SET rating_sum = rating_sum + NEW.stars, rating_count = rating_count + 1 WHERE id = NEW.product_id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER count_review AFTER INSERT OR UPDATE OF stars OR DELETE ON catalog.review FOR EACH ROW EXECUTE FUNCTION catalog.count_review();

-- Customers.
CREATE TABLE crm.customer (
    id bigserial PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL,
    phone text,
    birthday date,
    blocked boolean NOT NULL DEFAULT false,
    properties jsonb NOT NULL DEFAULT '{}',
    registered_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX customer_email_key ON crm.customer (lower(email));
CREATE TABLE crm.customer_address (
    id bigserial PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES crm.customer ON DELETE CASCADE,
    kind text NOT NULL DEFAULT 'billing' CHECK (kind IN ('billing', 'delivery')),
    street text, city text, postcode varchar(10), country char(2) NOT NULL DEFAULT 'DE'
);
CREATE TABLE crm.customer_group (id serial PRIMARY KEY, name text NOT NULL UNIQUE, discount numeric(4,2) NOT NULL DEFAULT 0);
CREATE TABLE crm.customer_group_member (group_id int REFERENCES crm.customer_group, customer_id bigint REFERENCES crm.customer ON DELETE CASCADE, since date DEFAULT current_date, PRIMARY KEY (group_id, customer_id));
CREATE TABLE crm.newsletter_subscription (email text PRIMARY KEY, topics text[] NOT NULL DEFAULT '{news}', confirmed_at timestamptz);
CREATE TABLE crm.support_ticket (
    id bigserial PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES crm.customer,
    subject text NOT NULL,
    status varchar(20) NOT NULL DEFAULT 'open',
    assigned_to name DEFAULT current_user,
    opened_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE crm.support_message (id bigserial PRIMARY KEY, ticket_id bigint NOT NULL REFERENCES crm.support_ticket ON DELETE CASCADE, body text NOT NULL, internal boolean NOT NULL DEFAULT false, sent_at timestamptz DEFAULT now());
CREATE TABLE crm.loyalty_account (customer_id bigint PRIMARY KEY REFERENCES crm.customer ON DELETE CASCADE, points int NOT NULL DEFAULT 0 CHECK (points >= 0));
CREATE TABLE crm.loyalty_entry (id bigserial PRIMARY KEY, customer_id bigint NOT NULL REFERENCES crm.loyalty_account, points int NOT NULL, reason text);
CREATE TABLE crm.customer_note (customer_id bigint, note text, at timestamptz DEFAULT now());
COMMENT ON TABLE crm.customer_note IS 'Free text; has no key, as it came from a spreadsheet';

ALTER TABLE crm.support_ticket ENABLE ROW LEVEL SECURITY;
CREATE POLICY support_open ON crm.support_ticket TO "Shop Support" USING (status <> 'secret') WITH CHECK (true);
CREATE POLICY app_all ON crm.support_ticket TO shop_app USING (true);
GRANT SELECT, INSERT, UPDATE ON crm.support_ticket, crm.support_message TO "Shop Support";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA crm TO "Shop Support";
GRANT USAGE ON SCHEMA crm TO "Shop Support";

CREATE FUNCTION crm.book_points() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = crm, pg_temp AS $$
BEGIN
    UPDATE loyalty_account SET points = points + NEW.points WHERE customer_id = NEW.customer_id;
    RETURN NEW;
END
$$;
CREATE TRIGGER book_points BEFORE INSERT ON crm.loyalty_entry FOR EACH ROW WHEN (NEW.points <> 0) EXECUTE FUNCTION crm.book_points();

-- Sales. Orders lie in partitions by month.
CREATE TYPE sales.order_status AS ENUM ('new', 'paid', 'shipped', 'done');
CREATE SEQUENCE sales.order_number START 100000 INCREMENT 7;
CREATE TABLE sales.carrier (code text PRIMARY KEY, name text NOT NULL, tracking_url text);
CREATE TABLE sales.coupon (code text PRIMARY KEY, percent numeric(5,2), amount money, uses int NOT NULL DEFAULT 0, CHECK (num_nonnulls(percent, amount) = 1));
CREATE TABLE sales.gift_card (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), balance money NOT NULL, issued date NOT NULL DEFAULT current_date);
CREATE TABLE sales.cart (id bigserial PRIMARY KEY, customer_id bigint REFERENCES crm.customer ON DELETE CASCADE, session_key bytea, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE sales.cart_item (
    cart_id bigint REFERENCES sales.cart ON DELETE CASCADE,
    variant_id bigint REFERENCES catalog.product_variant ON DELETE CASCADE,
    quantity int NOT NULL DEFAULT 1 CHECK (quantity > 0),
    PRIMARY KEY (cart_id, variant_id)
);
CREATE TABLE sales.orders (
    id bigint NOT NULL DEFAULT nextval('sales.order_number'),
    placed_on date NOT NULL,
    customer_id bigint NOT NULL REFERENCES crm.customer,
    status sales.order_status NOT NULL DEFAULT 'new',
    currency char(3) NOT NULL DEFAULT 'EUR',
    net_total numeric(14,2) NOT NULL DEFAULT 0,
    item_count int NOT NULL DEFAULT 0,
    coupon_code text REFERENCES sales.coupon,
    remark text,
    PRIMARY KEY (id, placed_on)
) PARTITION BY RANGE (placed_on);
ALTER SEQUENCE sales.order_number OWNED BY sales.orders.id;
CREATE TABLE sales.orders_2024_01 PARTITION OF sales.orders FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE sales.orders_2024_02 PARTITION OF sales.orders FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE sales.orders_2024_03 PARTITION OF sales.orders FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');
CREATE TABLE sales.orders_2024_04 PARTITION OF sales.orders FOR VALUES FROM ('2024-04-01') TO ('2024-05-01');
CREATE TABLE sales.orders_rest PARTITION OF sales.orders DEFAULT;
CREATE INDEX orders_customer_idx ON sales.orders (customer_id, placed_on DESC);
CREATE INDEX orders_open_idx ON sales.orders (status) WHERE status IN ('new', 'paid');
CREATE TABLE sales.order_item (
    id bigserial PRIMARY KEY,
    order_id bigint NOT NULL,
    placed_on date NOT NULL,
    variant_id bigint NOT NULL REFERENCES catalog.product_variant,
    quantity int NOT NULL CHECK (quantity > 0),
    unit_price numeric(12,2) NOT NULL,
    line_total numeric(14,2) GENERATED ALWAYS AS (quantity * unit_price) STORED,
    FOREIGN KEY (order_id, placed_on) REFERENCES sales.orders ON DELETE CASCADE
);
CREATE INDEX order_item_order_idx ON sales.order_item (order_id) INCLUDE (quantity, unit_price);
CREATE TABLE sales.order_status_history (order_id bigint, placed_on date, status sales.order_status, changed_at timestamptz DEFAULT clock_timestamp());
CREATE TABLE sales.payment (id bigserial PRIMARY KEY, order_id bigint NOT NULL, placed_on date NOT NULL, amount money NOT NULL, method text NOT NULL, raw json, paid_at timestamptz DEFAULT now(),
    FOREIGN KEY (order_id, placed_on) REFERENCES sales.orders ON DELETE CASCADE);
CREATE TABLE sales.refund (id bigserial PRIMARY KEY, payment_id bigint NOT NULL REFERENCES sales.payment ON DELETE CASCADE, amount money NOT NULL);
CREATE TABLE sales.shipment (id bigserial PRIMARY KEY, order_id bigint NOT NULL, placed_on date NOT NULL, carrier text REFERENCES sales.carrier ON UPDATE CASCADE, tracking text, shipped_at timestamptz,
    FOREIGN KEY (order_id, placed_on) REFERENCES sales.orders ON DELETE CASCADE);
CREATE TABLE sales.shipment_item (shipment_id bigint REFERENCES sales.shipment ON DELETE CASCADE, order_item_id bigint REFERENCES sales.order_item ON DELETE CASCADE, quantity int NOT NULL, PRIMARY KEY (shipment_id, order_item_id));
CREATE TABLE sales.coupon_redemption (coupon_code text REFERENCES sales.coupon, order_id bigint, redeemed_at timestamptz DEFAULT now(), PRIMARY KEY (coupon_code, order_id));
CREATE TABLE sales.return_request (id bigserial PRIMARY KEY, order_item_id bigint NOT NULL REFERENCES sales.order_item ON DELETE CASCADE, reason text NOT NULL, state text NOT NULL DEFAULT 'asked');

CREATE FUNCTION sales.total_order() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    o bigint := CASE TG_OP WHEN 'DELETE' THEN OLD.order_id ELSE NEW.order_id END;
BEGIN
    UPDATE sales.orders SET net_total = x.total, item_count = x.items
      FROM (SELECT coalesce(sum(quantity * unit_price), 0) AS total, count(*) AS items FROM sales.order_item WHERE order_id = o) x
     WHERE id = o;
    RETURN NULL;
END
$$;
CREATE TRIGGER total_order AFTER INSERT OR UPDATE OR DELETE ON sales.order_item FOR EACH ROW EXECUTE FUNCTION sales.total_order();
CREATE FUNCTION sales.note_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO sales.order_status_history (order_id, placed_on, status) VALUES (NEW.id, NEW.placed_on, NEW.status);
    RETURN NULL;
END
$$;
CREATE TRIGGER note_status AFTER UPDATE OF status ON sales.orders FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION sales.note_status();

-- Warehouse.
CREATE TABLE warehouse.warehouse (id serial PRIMARY KEY, code char(4) NOT NULL UNIQUE, location point, opened date);
CREATE TABLE warehouse.stock_location (id serial PRIMARY KEY, warehouse_id int NOT NULL REFERENCES warehouse.warehouse, aisle int NOT NULL, shelf int NOT NULL, UNIQUE (warehouse_id, aisle, shelf));
CREATE TABLE warehouse.stock_level (variant_id bigint REFERENCES catalog.product_variant ON DELETE CASCADE, warehouse_id int REFERENCES warehouse.warehouse, quantity int NOT NULL DEFAULT 0, PRIMARY KEY (variant_id, warehouse_id)) WITH (fillfactor = 70);
CREATE TABLE warehouse.stock_movement (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, variant_id bigint NOT NULL REFERENCES catalog.product_variant ON DELETE CASCADE, warehouse_id int NOT NULL REFERENCES warehouse.warehouse, delta int NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE INDEX stock_movement_at_idx ON warehouse.stock_movement USING brin (at);
CREATE TABLE warehouse.supplier (id serial PRIMARY KEY, name text NOT NULL, rating real, lead_time interval);
CREATE TABLE warehouse.purchase_order (id serial PRIMARY KEY, supplier_id int NOT NULL REFERENCES warehouse.supplier, ordered_on date NOT NULL, expected daterange);
CREATE TABLE warehouse.purchase_order_line (purchase_order_id int REFERENCES warehouse.purchase_order ON DELETE CASCADE, line_no smallint, variant_id bigint NOT NULL REFERENCES catalog.product_variant, quantity int NOT NULL, PRIMARY KEY (purchase_order_id, line_no));
CREATE TABLE warehouse.inventory_count (id serial PRIMARY KEY, counted_on date NOT NULL, counts jsonb NOT NULL);
CREATE FUNCTION warehouse.move_stock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO warehouse.stock_level AS l VALUES (NEW.variant_id, NEW.warehouse_id, NEW.delta)
        ON CONFLICT (variant_id, warehouse_id) DO UPDATE SET quantity = l.quantity + EXCLUDED.quantity;
    RETURN NEW;
END
$$;
CREATE TRIGGER move_stock AFTER INSERT ON warehouse.stock_movement FOR EACH ROW EXECUTE FUNCTION warehouse.move_stock();

-- Accounting.
CREATE TYPE accounting.side AS ENUM ('debit', 'credit');
CREATE TABLE accounting.account (number int PRIMARY KEY, name text NOT NULL, parent int REFERENCES accounting.account, is_open boolean NOT NULL DEFAULT true);
CREATE TABLE accounting.fiscal_period (id serial PRIMARY KEY, during daterange NOT NULL, closed boolean NOT NULL DEFAULT false, EXCLUDE USING gist (during WITH &&));
CREATE TABLE accounting.journal (code varchar(8) PRIMARY KEY, title text);
CREATE TABLE accounting.journal_entry (id bigserial PRIMARY KEY, journal varchar(8) NOT NULL REFERENCES accounting.journal, booked_on date NOT NULL, text text, UNIQUE (journal, id));
CREATE TABLE accounting.journal_line (
    entry_id bigint NOT NULL REFERENCES accounting.journal_entry ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    line_no int NOT NULL,
    account int NOT NULL REFERENCES accounting.account,
    side accounting.side NOT NULL,
    amount numeric(14,2) NOT NULL CHECK (amount > 0),
    PRIMARY KEY (entry_id, line_no)
);
CREATE TABLE accounting.invoice (id bigserial PRIMARY KEY, number text UNIQUE, order_id bigint, issued_on date NOT NULL, total numeric(14,2) NOT NULL, pdf bytea);
ALTER TABLE accounting.invoice ALTER COLUMN pdf SET STORAGE EXTERNAL;
CREATE TABLE accounting.invoice_line (invoice_id bigint REFERENCES accounting.invoice ON DELETE CASCADE, line_no int, text text, amount numeric(14,2), PRIMARY KEY (invoice_id, line_no));
CREATE TABLE accounting.bank_statement (id serial PRIMARY KEY, iban text NOT NULL, day date NOT NULL, balance money);
CREATE TABLE accounting.bank_transaction (statement_id int REFERENCES accounting.bank_statement, amount money NOT NULL, purpose text, matched boolean DEFAULT false);
CREATE FUNCTION accounting.check_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT sum(CASE side WHEN 'debit' THEN amount ELSE -amount END) FROM accounting.journal_line WHERE entry_id = NEW.entry_id) <> 0 THEN
        RAISE EXCEPTION 'entry % is not balanced', NEW.entry_id;
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER balanced AFTER INSERT OR UPDATE ON accounting.journal_line DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION accounting.check_balance();
GRANT INSERT ON ALL TABLES IN SCHEMA accounting TO shop_app;
GRANT SELECT (number, name) ON accounting.account TO shop_readonly;

-- Audit: rows of every table, without a key.
CREATE TABLE audit.change_log (at timestamptz NOT NULL DEFAULT clock_timestamp(), who name NOT NULL DEFAULT session_user, relation regclass, op char(1) NOT NULL, old_row jsonb, new_row jsonb);
CREATE INDEX change_log_at_idx ON audit.change_log (at);
CREATE TABLE audit.login_attempt (email text, address inet, ok boolean, at timestamptz DEFAULT now());
CREATE FUNCTION audit.log_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO audit.change_log (relation, op, old_row, new_row)
    VALUES (NULL, left(TG_OP, 1), CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END, CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
    RETURN NULL;
END
$$;
CREATE TRIGGER zz_audit AFTER INSERT OR UPDATE OR DELETE ON crm.customer FOR EACH ROW EXECUTE FUNCTION audit.log_change();
CREATE TRIGGER zz_audit AFTER INSERT OR UPDATE OR DELETE ON accounting.account FOR EACH ROW EXECUTE FUNCTION audit.log_change();
REVOKE ALL ON FUNCTION audit.log_change() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.log_change() TO shop_app WITH GRANT OPTION;

-- Views.
CREATE VIEW catalog.active_product AS SELECT id, sku, name, gross_price FROM catalog.product WHERE state = 'active';
CREATE VIEW sales.open_order WITH (security_barrier) AS SELECT o.id, o.placed_on, o.net_total, c.email FROM sales.orders o JOIN crm.customer c ON c.id = o.customer_id WHERE o.status IN ('new', 'paid');
CREATE VIEW accounting.balance AS
    SELECT a.number, a.name, sum(CASE l.side WHEN 'debit' THEN l.amount ELSE -l.amount END) AS balance
      FROM accounting.account a LEFT JOIN accounting.journal_line l ON l.account = a.number GROUP BY a.number, a.name;
CREATE MATERIALIZED VIEW sales.monthly_turnover AS SELECT date_trunc('month', placed_on)::date AS month, currency, sum(net_total) AS turnover, count(*) AS orders FROM sales.orders GROUP BY 1, 2;
CREATE UNIQUE INDEX monthly_turnover_key ON sales.monthly_turnover (month, currency);
CREATE MATERIALIZED VIEW catalog.bestseller AS SELECT v.product_id, sum(i.quantity) AS sold FROM sales.order_item i JOIN catalog.product_variant v ON v.id = i.variant_id GROUP BY 1 WITH NO DATA;
CREATE FUNCTION catalog.search_products(query text) RETURNS SETOF catalog.product LANGUAGE sql STABLE AS $$
    SELECT * FROM catalog.product WHERE search @@ websearch_to_tsquery('english', query) ORDER BY id LIMIT 20
$$;
GRANT SELECT ON accounting.balance TO shop_accounting WITH GRANT OPTION;

-- Data.
INSERT INTO catalog.tax_class (name) VALUES ('full'), ('reduced'), ('free');
INSERT INTO catalog.tax_rate (tax_class_id, country, percent) SELECT c, k, 7 * c FROM generate_series(1, 3) c, unnest(ARRAY['DE', 'AT', 'FR']) k;
INSERT INTO catalog.brand (name) SELECT 'Brand ' || i FROM generate_series(1, 20) i;
INSERT INTO catalog.category (parent_id, slug, name) SELECT CASE WHEN i > 5 THEN i % 5 + 1 END, 'cat-' || i, 'Category ' || i FROM generate_series(1, 30) i;
INSERT INTO catalog.product (brand_id, tax_class_id, sku, name, description, state, net_price, weight_grams)
    SELECT i % 20 + 1, i % 3 + 1, 'P-' || i, 'Product number ' || i, repeat('useful thing ', i % 40), (ARRAY['draft', 'active', 'retired'])[i % 3 + 1]::catalog.product_state, i * 1.37, i * 10 FROM generate_series(1, 400) i;
INSERT INTO catalog.product_category SELECT i, i % 30 + 1 FROM generate_series(1, 400) i;
INSERT INTO catalog.product_variant (product_id, sku) SELECT i % 400 + 1, 'V-' || i FROM generate_series(1, 600) i;
INSERT INTO catalog.attribute (code, label) VALUES ('color', 'Color'), ('size', 'Size');
INSERT INTO catalog.attribute_value (attribute_id, value) SELECT i % 2 + 1, 'value ' || i FROM generate_series(1, 20) i;
INSERT INTO catalog.variant_attribute SELECT i, i % 20 + 1 FROM generate_series(1, 600) i;
INSERT INTO catalog.product_image (product_id, position, thumbnail, url) SELECT i, 1, decode(repeat(lpad(to_hex(i % 256), 2, '0'), 200), 'hex'), 'https://img.example/' || i FROM generate_series(1, 300) i;
INSERT INTO catalog.price_list (name, currency) VALUES ('retail', 'EUR'), ('export', 'USD');
INSERT INTO catalog.price (price_list_id, variant_id, valid, amount) SELECT l, i, '[2024-01-01,2025-01-01)', i FROM generate_series(1, 2) l, generate_series(1, 300) i;
INSERT INTO catalog.tag (name) SELECT 'tag' || i FROM generate_series(1, 15) i;
INSERT INTO catalog.product_tag SELECT i, i % 15 + 1 FROM generate_series(1, 200) i;
INSERT INTO catalog.product_translation SELECT i, 'de', 'Produkt Nummer ' || i FROM generate_series(1, 200) i;
INSERT INTO catalog.related_product SELECT i, i + 1 FROM generate_series(1, 100) i;
INSERT INTO crm.customer (email, name, phone, birthday) SELECT 'customer' || i || '@shop.example', 'Customer ' || i, NULLIF('0' || i, '050'), '1980-01-01'::date + i FROM generate_series(1, 300) i;
INSERT INTO crm.customer_address (customer_id, street, city) SELECT i, 'Street ' || i, 'City' FROM generate_series(1, 300) i;
INSERT INTO crm.customer_group (name, discount) VALUES ('retail', 0), ('wholesale', 10), ('staff', 25.5);
INSERT INTO crm.customer_group_member SELECT i % 3 + 1, i FROM generate_series(1, 300) i;
INSERT INTO crm.loyalty_account SELECT i, 100 FROM generate_series(1, 300) i;
INSERT INTO crm.customer_note SELECT i % 10, 'note ' || i % 4 FROM generate_series(1, 60) i;
INSERT INTO crm.newsletter_subscription SELECT 'reader' || i || '@mail.example', ARRAY['news', 'offers'] FROM generate_series(1, 50) i;
INSERT INTO crm.support_ticket (customer_id, subject) SELECT i, 'Ticket ' || i FROM generate_series(1, 40) i;
INSERT INTO sales.carrier VALUES ('DHL', 'Parcel', NULL), ('UPS', 'Brown', 'https://track.example/%s');
INSERT INTO sales.coupon VALUES ('TEN', 10, NULL), ('FIVER', NULL, 5);
INSERT INTO sales.gift_card (balance) SELECT i::money FROM generate_series(1, 20) i;
INSERT INTO warehouse.warehouse (code, location) VALUES ('EAST', '(1,2)'), ('WEST', '(3,4)');
INSERT INTO warehouse.supplier (name, rating, lead_time) SELECT 'Supplier ' || i, i / 3.0, make_interval(days => i) FROM generate_series(1, 10) i;
INSERT INTO warehouse.stock_movement (variant_id, warehouse_id, delta) SELECT i, i % 2 + 1, 100 FROM generate_series(1, 600) i;
INSERT INTO sales.orders (placed_on, customer_id) SELECT '2024-01-01'::date + i % 121, i % 300 + 1 FROM generate_series(1, 500) i;
INSERT INTO sales.order_item (order_id, placed_on, variant_id, quantity, unit_price) SELECT o.id, o.placed_on, v, v % 3 + 1, v FROM sales.orders o, generate_series(1, 2) v;
INSERT INTO accounting.account SELECT 1000 + i, 'Account ' || i FROM generate_series(1, 30) i;
INSERT INTO accounting.journal VALUES ('SALES', 'Sales'), ('BANK', 'Bank');
INSERT INTO accounting.fiscal_period (during) SELECT daterange((d)::date, (d + '1 month')::date) FROM generate_series('2024-01-01'::timestamp, '2024-12-01', '1 month') d;
BEGIN;
INSERT INTO accounting.journal_entry (journal, booked_on, text) SELECT 'SALES', '2024-01-01'::date + i, 'entry ' || i FROM generate_series(1, 100) i;
INSERT INTO accounting.journal_line SELECT id, l, 1001 + l, (ARRAY['debit', 'credit'])[l]::accounting.side, id * 10 FROM accounting.journal_entry, generate_series(1, 2) l;
COMMIT;
INSERT INTO accounting.invoice (number, issued_on, total, pdf) SELECT 'INV-' || i, '2024-01-01', i, decode(repeat(md5(i::text), 200), 'hex') FROM generate_series(1, 30) i;
INSERT INTO accounting.bank_statement (iban, day, balance) SELECT 'DE00' || i, '2024-01-01', i::money FROM generate_series(1, 5) i;
INSERT INTO accounting.bank_transaction SELECT i % 5 + 1, (i % 7)::money, 'purpose ' || i % 3 FROM generate_series(1, 80) i;
REFRESH MATERIALIZED VIEW sales.monthly_turnover;
RESET ROLE;
ANALYZE;
