ALTER TYPE sales.order_status ADD VALUE 'cancelled' AFTER 'done';
ALTER TYPE sales.order_status ADD VALUE IF NOT EXISTS 'lost';
