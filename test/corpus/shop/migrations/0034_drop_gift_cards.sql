DROP TABLE sales.gift_card;
ALTER TABLE sales.coupon DROP CONSTRAINT coupon_check, ADD CONSTRAINT coupon_worth CHECK (num_nonnulls(percent, amount) >= 1) NO INHERIT, ADD COLUMN valid tstzrange DEFAULT tstzrange(now(), NULL);
