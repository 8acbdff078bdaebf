-- Roles belong to the server; each server that runs the shop has them.
CREATE ROLE shop_owner NOLOGIN;
CREATE ROLE shop_app LOGIN;
CREATE ROLE shop_readonly NOLOGIN;
CREATE ROLE shop_accounting NOLOGIN;
CREATE ROLE "Shop Support" LOGIN;
GRANT shop_readonly TO "Shop Support";
