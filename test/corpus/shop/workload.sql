-- What the shop's sessions do all day. Each part is sent as one string. A part may
-- say from which migration on it works, and until which one.

-- @place_order
BEGIN;
SET LOCAL ROLE shop_app;
WITH o AS (
    INSERT INTO sales.orders (placed_on, customer_id) VALUES ('2024-02-01'::date + (random() * 80)::int, 1 + (random() * 250)::int) RETURNING id, placed_on)
INSERT INTO sales.order_item (order_id, placed_on, variant_id, quantity, unit_price) SELECT o.id, o.placed_on, 1 + (random() * 500)::int, n, 9.99 * n FROM o, generate_series(1, 3) n;
COMMIT;

-- @order_status
UPDATE sales.orders SET status = CASE status WHEN 'new' THEN 'paid'::sales.order_status WHEN 'paid' THEN 'shipped' ELSE 'done' END
 WHERE id = (SELECT id FROM sales.orders WHERE status <> 'done' ORDER BY random() LIMIT 1);

-- @move_order_between_months
UPDATE sales.orders SET remark = 'moved' WHERE id IN (SELECT id FROM sales.orders ORDER BY random() LIMIT 2);

-- @change_item
UPDATE sales.order_item SET quantity = quantity % 5 + 1 WHERE id = (SELECT id FROM sales.order_item ORDER BY random() LIMIT 1);

-- @delete_order
DELETE FROM sales.orders WHERE id IN (SELECT id FROM sales.orders WHERE status = 'new' AND remark IS NULL ORDER BY random() LIMIT 1);

-- @pay until 0009
INSERT INTO sales.payment (order_id, placed_on, amount, method, raw) SELECT id, placed_on, net_total::money, 'card', '{"auth" : "ok"}' FROM sales.orders WHERE status = 'new' ORDER BY random() LIMIT 1 FOR KEY SHARE;

-- @pay_numeric from 0009
INSERT INTO sales.payment (order_id, placed_on, amount, method, raw) SELECT id, placed_on, net_total, 'card', '{"auth" : "ok"}' FROM sales.orders WHERE status = 'new' ORDER BY random() LIMIT 1 FOR KEY SHARE;

-- @cart
WITH c AS (INSERT INTO sales.cart (customer_id, session_key) VALUES (1 + (random() * 250)::int, decode(md5(random()::text), 'hex')) RETURNING id)
INSERT INTO sales.cart_item (cart_id, variant_id, quantity) SELECT id, v, v FROM c, generate_series(1, 4) v;
DELETE FROM sales.cart WHERE id = (SELECT min(id) FROM sales.cart);

-- @review
INSERT INTO catalog.review (product_id, stars, body) VALUES (1 + (random() * 300)::int, 1 + (random() * 4)::int, 'so so');
UPDATE catalog.review SET stars = stars % 5 + 1 WHERE id = (SELECT min(id) FROM catalog.review);

-- @reprice
UPDATE catalog.product SET net_price = net_price + 0.5 WHERE id = 1 + (random() * 300)::int;

-- @search
SELECT count(*) FROM catalog.search_products('useful');

-- @images_swap
UPDATE catalog.product_image SET position = 3 - position WHERE product_id = 1 + (random() * 250)::int AND position IN (1, 2);

-- @stock
INSERT INTO warehouse.stock_movement (variant_id, warehouse_id, delta) SELECT 1 + (random() * 500)::int, 1, -1 FROM generate_series(1, 3);

-- @book
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
WITH e AS (INSERT INTO accounting.journal_entry (journal, booked_on, text) VALUES ('SALES', '2024-03-01', 'load') RETURNING id)
INSERT INTO accounting.journal_line (entry_id, line_no, account, side, amount) SELECT e.id, l, 1001 + l, (ARRAY['debit', 'credit'])[l]::accounting.side, 12.34 FROM e, generate_series(1, 2) l;
COMMIT;

-- @customer
INSERT INTO crm.customer (email, name) VALUES ('new' || md5(random()::text) || '@shop.example', 'New');
UPDATE crm.customer SET properties = properties || jsonb_build_object('seen', floor(random() * 1000)) WHERE id = 1 + (random() * 250)::int;

-- @notes
INSERT INTO crm.customer_note (customer_id, note) VALUES (1, 'again'), (1, 'again');
UPDATE crm.customer_note SET note = note || '.' WHERE ctid = (SELECT ctid FROM crm.customer_note ORDER BY random() LIMIT 1) AND length(note) < 30;
DELETE FROM crm.customer_note WHERE ctid = (SELECT ctid FROM crm.customer_note ORDER BY random() LIMIT 1);

-- @points
INSERT INTO crm.loyalty_entry (customer_id, points, reason) VALUES (1 + (random() * 250)::int, 5, 'order');

-- @ticket
BEGIN;
SET LOCAL ROLE "Shop Support";
UPDATE crm.support_ticket SET subject = left(subject, 40) || '!' WHERE id = 1 + (random() * 39)::int;
INSERT INTO crm.support_message (ticket_id, body) SELECT id, 'hello' FROM crm.support_ticket ORDER BY random() LIMIT 1;
COMMIT;

-- @invoice
UPDATE accounting.invoice SET total = total + 1 WHERE id = 1 + (random() * 29)::int;

-- @bank until 0026
UPDATE accounting.bank_transaction SET matched = NOT matched WHERE statement_id = 1 + (random() * 4)::int;

-- @savepoint
BEGIN;
INSERT INTO audit.login_attempt VALUES ('a@shop.example', '10.0.0.1', true);
SAVEPOINT s;
INSERT INTO audit.login_attempt VALUES ('never@shop.example', '10.0.0.2', false);
ROLLBACK TO s;
INSERT INTO audit.login_attempt VALUES ('b@shop.example', '::1', NULL);
COMMIT;

-- @rolled_back
BEGIN;
INSERT INTO crm.customer (email, name) VALUES ('ghost@shop.example', 'Ghost');
ROLLBACK;

-- @turnover
DO $$ BEGIN IF random() < 0.05 THEN REFRESH MATERIALIZED VIEW sales.monthly_turnover; END IF; END $$;

-- @gift until 0034
UPDATE sales.gift_card SET balance = balance + 1::money WHERE id = (SELECT id FROM sales.gift_card ORDER BY random() LIMIT 1);

-- @wishlist from 0013
INSERT INTO crm.wishlist (customer_id, product_id) VALUES (1 + (random() * 250)::int, 1 + (random() * 300)::int) ON CONFLICT DO NOTHING;

-- @cancel from 0012
UPDATE sales.orders SET status = 'cancelled' WHERE id = (SELECT id FROM sales.orders WHERE status = 'done' ORDER BY random() LIMIT 1);

-- @event from 0022
INSERT INTO sales.order_event (order_id, kind, payload) SELECT id, 'seen', jsonb_build_object('n', random()) FROM sales.orders ORDER BY random() LIMIT 2;

-- @webshop_v2 from 0030
UPDATE sales.shop_setting SET value = to_jsonb(random()) WHERE key = 'banner';
